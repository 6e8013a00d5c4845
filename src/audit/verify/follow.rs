//! Following a chain: is what is new on it what was signed, and does it go on from what was there?
//!
//! Owns where it has got to, and the checks of one further entry: place, link, digest, form, signature. Never looks back and
//! never weighs money or freshness: that is the whole verifier's. Stops at the first thing that is wrong and stands before
//! it from then on.

use crate::{
    audit::{
        StoredEntry,
        chain::{self, Head},
        entry::EntryBody,
    },
    domain::ids::{EntryId, OrgId},
};

/// How far a chain was followed.
#[derive(Clone, Debug)]
pub struct Follow {
    org: OrgId,
    head: Head,
}

impl Follow {
    /// From its beginning.
    pub fn new(org: OrgId) -> Self {
        Self { org, head: Head::START }
    }

    /// The last entry that was in order.
    pub fn head(&self) -> Head {
        self.head
    }

    /// Checks the entry where it has got to, again, or the next one. `is_signed`: whether a batch of this boot, with a
    /// valid signature, wrote this digest under this id.
    pub fn entry(&mut self, entry: &StoredEntry, is_signed: impl FnOnce(&EntryId) -> bool) -> Result<(), String> {
        let StoredEntry { seq, link, digest, body } = entry;
        if *seq == self.head.seq {
            let same = *link == self.head.link;
            return if same { Ok(()) } else { Err(format!("entry {seq} was rewritten since it was verified")) };
        }
        if *seq != self.head.seq.saturating_add(1) {
            return Err(format!("entries are missing between {} and {seq}", self.head.seq));
        }
        if chain::link(&self.head.link, *seq, digest) != *link {
            return Err(format!("the link of entry {seq} does not follow from the one before"));
        }
        if chain::digest(body.as_bytes()) != *digest {
            return Err(format!("the text of entry {seq} is not the one that was hashed"));
        }
        let id = EntryBody::parse(body).map_err(|error| format!("entry {seq} is {error}"))?.id;
        if id.org != self.org || !is_signed(&id) {
            return Err(format!("no valid batch of its boot covers entry {seq}"));
        }
        self.head = Head { seq: *seq, link: *link };
        Ok(())
    }

    /// Compares the head row with the last entry, once there is no further one.
    pub fn end(&self, stored: Head) -> Result<(), String> {
        let Head { seq, .. } = self.head;
        if stored == self.head {
            return Ok(());
        }
        Err(format!("the head says that entry {} is the last, with its link; the chain ends at {seq}", stored.seq))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        audit::{Entry, Header},
        domain::{ids::BootId, stamp::ConfigStamp},
    };

    fn entries() -> Vec<StoredEntry> {
        let (org, boot) = (OrgId::parse("org_a").unwrap(), BootId::parse("boot_a").unwrap());
        let mut head = Head::START;
        let entry = |counter: u64| {
            let header = Header { org: &org, boot: &boot, counter, config: ConfigStamp::NONE, kind: "note", time: 0 };
            let Entry { body, digest } = Entry::build(&header, &json!({ "n": counter })).unwrap();
            head = head.next(&digest);
            StoredEntry { seq: head.seq, link: head.link, digest, body }
        };
        (1..=3).map(entry).collect()
    }

    fn follow(entries: &[StoredEntry]) -> (Follow, Result<(), String>) {
        let mut follow = Follow::new(OrgId::parse("org_a").unwrap());
        let result = entries.iter().try_for_each(|entry| follow.entry(entry, |_| true));
        (follow, result)
    }

    #[test]
    fn a_chain_in_order_is_followed_to_its_end_and_its_last_entry_may_be_asked_about_again() {
        let entries = entries();
        let (mut follow, result) = follow(&entries);
        assert_eq!((result, follow.head().seq), (Ok(()), 3));
        assert_eq!(follow.entry(&entries[2], |_| false), Ok(()));
        assert_eq!(follow.end(follow.head()), Ok(()));
        assert!(follow.end(Head { seq: 4, ..follow.head() }).is_err());
        let rewritten = StoredEntry { link: entries[0].link, ..entries[2].clone() };
        assert!(follow.entry(&rewritten, |_| true).unwrap_err().contains("rewritten"));
    }

    #[test]
    fn whatever_is_changed_is_where_it_stops() {
        for (change, place) in [
            (
                Box::new(|e: &mut Vec<StoredEntry>| e[1].body = e[1].body.replace(":2}", ":7}")) as Box<dyn Fn(&mut _)>,
                1,
            ),
            (Box::new(|e: &mut Vec<StoredEntry>| e[2].digest = e[1].digest), 2),
            (Box::new(|e: &mut Vec<StoredEntry>| e[0].link = e[1].link), 0),
            (Box::new(|e: &mut Vec<StoredEntry>| drop(e.remove(1))), 1),
        ] {
            let mut entries = entries();
            change(&mut entries);
            let (follow, result) = follow(&entries);
            assert!(result.is_err());
            assert_eq!(follow.head().seq, place);
        }
        let mut follow = Follow::new(OrgId::parse("org_a").unwrap());
        assert!(follow.entry(&entries()[0], |_| false).unwrap_err().contains("no valid batch"));
        let mut other = Follow::new(OrgId::parse("org_b").unwrap());
        assert!(other.entry(&entries()[0], |_| true).is_err(), "another chain's entry");
    }
}
