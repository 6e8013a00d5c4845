//! The bytes of a sealed row, format 1.
//!
//! ```text
//! row  = fmt(1) | dek_id(16) | body
//! body = salt(32) | commit(32) | nonce(12) | ciphertext | tag(16)
//! key | commit = HKDF-SHA256(ikm = data key, salt, info = "vault/v1", 64 bytes)
//! AAD  = fmt | for each of org, credential, field, dek_id: length (8 bytes, big end first) | bytes
//! ```
//!
//! One HKDF step per row gives an AES-256-GCM key that is used once, which ends the nonce budget, and a commitment to
//! the data key, which AES-GCM alone lacks. Owns both directions, and the body that the local KEK shares. Never asks who
//! may open, never keeps a key. Opening is total: whatever the bytes, it gives the clear text or a refusal.

use aes_gcm::{
    Aes256Gcm,
    aead::{AeadInOut, KeyInit},
};
use hkdf::Hkdf;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::{
    domain::ids::{CredentialId, OrgId},
    vault::{DataKeyBytes, DataKeyId, Refusal, SecretBytes, VaultError},
};

/// Most clear bytes in one row: keys and certificates need a few thousand, and nobody should make us copy more.
pub const MAX_CLEAR_BYTES: usize = 1 << 20;

const FORMAT_V1: u8 = 1;
const ROW_INFO: &[u8] = b"vault/v1";
const SALT_BYTES: usize = 32;
const COMMIT_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
const HEADER_BYTES: usize = 1 + 16;
const BODY_OVERHEAD: usize = SALT_BYTES + COMMIT_BYTES + NONCE_BYTES + TAG_BYTES;

/// Where a row stands; it opens nowhere else.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    /// Whose row.
    pub(crate) org: &'a OrgId,
    /// Which credential; a rolled one has a new id, so that an old row put back does not open.
    pub(crate) credential: &'a CredentialId,
    /// Which column or part of it.
    pub(crate) field: &'a str,
}

/// Seals one row.
pub(crate) fn seal(key: &DataKeyBytes, id: &DataKeyId, place: &Place<'_>, clear: &[u8]) -> Result<Vec<u8>, VaultError> {
    let mut row = Vec::with_capacity(HEADER_BYTES + BODY_OVERHEAD + clear.len().min(MAX_CLEAR_BYTES));
    row.push(FORMAT_V1);
    row.extend_from_slice(&id.0);
    seal_body(&mut row, key.expose(), ROW_INFO, &row_aad(id, place), clear)?;
    Ok(row)
}

/// Opens one row that was sealed under this data key for this place.
pub(crate) fn open(
    key: &DataKeyBytes,
    id: &DataKeyId,
    place: &Place<'_>,
    row: &[u8],
) -> Result<SecretBytes, VaultError> {
    let (named, body) = split_row(row)?;
    if named != *id {
        return Err(VaultError::WrongDataKey);
    }
    open_body(key.expose(), ROW_INFO, &row_aad(id, place), body)
}

/// Which data key a row needs; nothing is verified yet.
pub(crate) fn data_key_of(row: &[u8]) -> Result<DataKeyId, VaultError> {
    split_row(row).map(|(id, _)| id)
}

fn split_row(row: &[u8]) -> Result<(DataKeyId, &[u8]), VaultError> {
    let (format, rest) = row.split_first().ok_or(VaultError::Refused(Refusal::Truncated))?;
    if *format != FORMAT_V1 {
        return Err(VaultError::UnknownFormat(*format));
    }
    let (id, body) = rest.split_first_chunk().ok_or(VaultError::Refused(Refusal::Truncated))?;
    Ok((DataKeyId(*id), body))
}

fn row_aad(id: &DataKeyId, place: &Place<'_>) -> Vec<u8> {
    let parts = [place.org.as_str().as_bytes(), place.credential.as_str().as_bytes(), place.field.as_bytes(), &id.0];
    bind(&[FORMAT_V1], &parts)
}

/// A label and length-prefixed parts: two different lists of parts never give the same bytes.
pub(crate) fn bind(label: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let bytes = label.len() + parts.iter().map(|part| 8 + part.len()).sum::<usize>();
    let mut bound = Vec::with_capacity(bytes);
    bound.extend_from_slice(label);
    for part in parts {
        bound.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bound.extend_from_slice(part);
    }
    bound
}

/// Appends a sealed body to `out` with a fresh salt and nonce.
pub(crate) fn seal_body(
    out: &mut Vec<u8>,
    key: &[u8; 32],
    info: &[u8],
    aad: &[u8],
    clear: &[u8],
) -> Result<(), VaultError> {
    let mut chance = Chance { salt: [0; SALT_BYTES], nonce: [0; NONCE_BYTES] };
    getrandom::fill(&mut chance.salt).map_err(|_| VaultError::Entropy)?;
    getrandom::fill(&mut chance.nonce).map_err(|_| VaultError::Entropy)?;
    seal_body_with(out, &chance, &OneUse::derive(key, &chance.salt, info)?, aad, clear)
}

struct Chance {
    salt: [u8; SALT_BYTES],
    nonce: [u8; NONCE_BYTES],
}

fn seal_body_with(
    out: &mut Vec<u8>,
    chance: &Chance,
    one_use: &OneUse,
    aad: &[u8],
    clear: &[u8],
) -> Result<(), VaultError> {
    if clear.len() > MAX_CLEAR_BYTES {
        return Err(VaultError::TooLarge);
    }
    // Reserved before the clear text goes in: growing later would leave a copy of it behind.
    out.reserve(BODY_OVERHEAD + clear.len());
    out.extend_from_slice(&chance.salt);
    out.extend_from_slice(&one_use.commit);
    out.extend_from_slice(&chance.nonce);
    let start = out.len();
    out.extend_from_slice(clear);
    let (_, text) = out.split_at_mut(start);
    let Ok(tag) = one_use.cipher.encrypt_inout_detached((&chance.nonce).into(), aad, text.into()) else {
        out.zeroize();
        return Err(VaultError::TooLarge);
    };
    out.extend_from_slice(&tag);
    Ok(())
}

/// Opens a body; the commitment is compared, in constant time, before anything is decrypted.
pub(crate) fn open_body(key: &[u8; 32], info: &[u8], aad: &[u8], body: &[u8]) -> Result<SecretBytes, VaultError> {
    let parts = BodyParts::split(body).ok_or(VaultError::Refused(Refusal::Truncated))?;
    if parts.text.len() > MAX_CLEAR_BYTES {
        return Err(VaultError::TooLarge);
    }
    let one_use = OneUse::derive(key, parts.salt, info)?;
    if !bool::from(one_use.commit.ct_eq(parts.commit)) {
        return Err(VaultError::Refused(Refusal::Commitment));
    }
    let mut clear = Zeroizing::new(parts.text.to_vec());
    one_use
        .cipher
        .decrypt_inout_detached(parts.nonce.into(), aad, clear.as_mut_slice().into(), parts.tag.into())
        .map_err(|_| VaultError::Refused(Refusal::Tag))?;
    Ok(SecretBytes::new(std::mem::take(&mut *clear)))
}

struct BodyParts<'a> {
    salt: &'a [u8; SALT_BYTES],
    commit: &'a [u8; COMMIT_BYTES],
    nonce: &'a [u8; NONCE_BYTES],
    text: &'a [u8],
    tag: &'a [u8; TAG_BYTES],
}

impl<'a> BodyParts<'a> {
    fn split(body: &'a [u8]) -> Option<Self> {
        let (salt, rest) = body.split_first_chunk()?;
        let (commit, rest) = rest.split_first_chunk()?;
        let (nonce, rest) = rest.split_first_chunk()?;
        let (text, tag) = rest.split_last_chunk()?;
        Some(Self { salt, commit, nonce, text, tag })
    }
}

/// A cipher for one row only, and the commitment that belongs to it.
struct OneUse {
    cipher: Aes256Gcm,
    commit: [u8; COMMIT_BYTES],
}

impl OneUse {
    fn derive(key: &[u8; 32], salt: &[u8; SALT_BYTES], info: &[u8]) -> Result<Self, VaultError> {
        // HKDF fails only beyond 8,160 bytes of output, so neither refusal below can be met.
        let refused = VaultError::Refused(Refusal::Commitment);
        let mut okm = Zeroizing::new([0; 32 + COMMIT_BYTES]);
        Hkdf::<Sha256>::new(Some(salt), key).expand(info, okm.as_mut_slice()).map_err(|_| refused.clone())?;
        let (cipher_key, commit) = okm.split_first_chunk::<32>().ok_or(refused)?;
        let mut one_use = Self { cipher: Aes256Gcm::new(cipher_key.into()), commit: [0; COMMIT_BYTES] };
        one_use.commit.copy_from_slice(commit);
        Ok(one_use)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: DataKeyId = DataKeyId([0x33; 16]);
    /// Made by an independent implementation (Python, OpenSSL) for the parts below.
    const KNOWN_ROW: &str = "0133333333333333333333333333333333111111111111111111111111111111111111111111111111111111111111\
        1111 78a84dbc4807d46fa8abaeef00c6f77b7333aa86cba8311d846d0a2b67c613e9 222222222222222222222222 \
        64bb0e5e365880c7445b17414317980e780b60256e0adac3867a783df972";

    fn key() -> DataKeyBytes {
        let bytes: Vec<u8> = (0..32).collect();
        DataKeyBytes::from_slice(&bytes).unwrap()
    }

    fn with_place<T>(run: impl FnOnce(&Place<'_>) -> T) -> T {
        let (org, credential) = (OrgId::parse("org_a").unwrap(), CredentialId::parse("cred_1").unwrap());
        run(&Place { org: &org, credential: &credential, field: "api_key" })
    }

    fn reopen(row: &[u8]) -> Result<SecretBytes, VaultError> {
        with_place(|place| open(&key(), &ID, place, row))
    }

    fn sealed(clear: &[u8]) -> Vec<u8> {
        with_place(|place| seal(&key(), &ID, place, clear)).unwrap()
    }

    fn refusal(row: &[u8]) -> Option<VaultError> {
        reopen(row).err()
    }

    #[test]
    fn the_row_format_is_what_another_implementation_makes() {
        let row = hex::decode(KNOWN_ROW.replace(' ', "")).unwrap();
        assert_eq!(reopen(&row).unwrap_or_else(|error| panic!("{error}")).expose(), b"sk-canary-0001");
        let chance = Chance { salt: [0x11; 32], nonce: [0x22; 12] };
        let one_use = OneUse::derive(key().expose(), &chance.salt, ROW_INFO).unwrap();
        let mut body = Vec::new();
        let aad = with_place(|place| row_aad(&ID, place));
        seal_body_with(&mut body, &chance, &one_use, &aad, b"sk-canary-0001").unwrap();
        assert_eq!(body, row[HEADER_BYTES..]);
    }

    #[test]
    fn the_same_clear_text_never_seals_to_the_same_row() {
        let (one, two) = (sealed(b"same"), sealed(b"same"));
        assert_ne!(one[HEADER_BYTES..HEADER_BYTES + SALT_BYTES], two[HEADER_BYTES..HEADER_BYTES + SALT_BYTES]);
        assert_ne!(one[one.len() - 20..], two[two.len() - 20..]);
    }

    #[test]
    fn every_single_bit_flip_refuses() {
        let row = sealed(b"sk-canary");
        for bit in 0..row.len() * 8 {
            let mut altered = row.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert!(reopen(&altered).is_err(), "bit {bit} of {}", row.len() * 8);
        }
    }

    #[test]
    fn every_truncation_and_every_extra_byte_refuses() {
        let row = sealed(b"sk-canary");
        for length in 0..row.len() {
            assert!(reopen(&row[..length]).is_err(), "{length} bytes");
            assert!(reopen(&row[row.len() - length..]).is_err(), "the last {length} bytes");
        }
        assert!(reopen(&[&row[..], &[0]].concat()).is_err());
        assert_eq!(refusal(&[]), Some(VaultError::Refused(Refusal::Truncated)));
        assert_eq!(refusal(&row[..HEADER_BYTES + BODY_OVERHEAD - 1]), Some(VaultError::Refused(Refusal::Truncated)));
    }

    #[test]
    fn an_unknown_format_and_a_foreign_data_key_are_named() {
        let mut row = sealed(b"sk-canary");
        assert_eq!(data_key_of(&row), Ok(ID));
        row[1] ^= 1;
        assert_eq!(refusal(&row), Some(VaultError::WrongDataKey));
        row[0] = 2;
        assert_eq!(refusal(&row), Some(VaultError::UnknownFormat(2)));
        assert_eq!(data_key_of(&row), Err(VaultError::UnknownFormat(2)));
    }

    #[test]
    fn the_commitment_is_checked_before_anything_is_decrypted() {
        let row = sealed(b"sk-canary");
        let commit = HEADER_BYTES + SALT_BYTES;
        // A wrong commitment alone, over a text that would decrypt, refuses by the commitment.
        let mut altered = row.clone();
        altered[commit] ^= 1;
        assert_eq!(refusal(&altered), Some(VaultError::Refused(Refusal::Commitment)));
        // With the tag wrong as well, the commitment still speaks first.
        *altered.last_mut().unwrap() ^= 1;
        assert_eq!(refusal(&altered), Some(VaultError::Refused(Refusal::Commitment)));
        // Only with the right commitment does the tag decide.
        altered[commit] ^= 1;
        assert_eq!(refusal(&altered), Some(VaultError::Refused(Refusal::Tag)));
        // Another data key is noticed by the commitment, not by luck of the tag.
        let other = DataKeyBytes::from_slice(&[9; 32]).unwrap();
        let opened = with_place(|place| open(&other, &ID, place, &row));
        assert_eq!(opened.err(), Some(VaultError::Refused(Refusal::Commitment)));
    }

    #[test]
    fn a_field_cannot_borrow_bytes_from_its_neighbour() {
        let (org, credential) = (OrgId::parse("org_ac").unwrap(), CredentialId::parse("red_1").unwrap());
        let shifted = Place { org: &org, credential: &credential, field: "api_key" };
        let row = sealed(b"sk-canary");
        assert_eq!(open(&key(), &ID, &shifted, &row).err(), Some(VaultError::Refused(Refusal::Tag)));
        assert_ne!(bind(b"x", &[b"ab", b"c"]), bind(b"x", &[b"a", b"bc"]));
        assert_ne!(bind(b"x", &[b"ab"]), bind(b"x", &[b"ab", b""]));
    }

    #[test]
    fn too_many_bytes_are_refused_in_both_directions() {
        let most = vec![7; MAX_CLEAR_BYTES];
        assert_eq!(reopen(&sealed(&most)).unwrap_or_else(|error| panic!("{error}")).expose(), most);
        let more = vec![7; MAX_CLEAR_BYTES + 1];
        assert_eq!(with_place(|place| seal(&key(), &ID, place, &more)), Err(VaultError::TooLarge));
        let mut row = sealed(b"");
        row.extend_from_slice(&more);
        assert_eq!(refusal(&row), Some(VaultError::TooLarge));
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens(clear in proptest::collection::vec(any::<u8>(), 0..300)) {
            let row = sealed(&clear);
            prop_assert_eq!(row.len(), HEADER_BYTES + BODY_OVERHEAD + clear.len());
            let opened = reopen(&row);
            prop_assert!(opened.is_ok_and(|opened| opened.expose() == clear));
        }

        #[test]
        fn opening_is_total(noise in proptest::collection::vec(any::<u8>(), 0..200), framed in any::<bool>()) {
            let start = if framed { [&[FORMAT_V1][..], &ID.0].concat() } else { Vec::new() };
            prop_assert!(reopen(&[start, noise].concat()).is_err());
        }
    }
}
