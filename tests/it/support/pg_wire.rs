//! Just enough of `PostgreSQL`'s wire protocol to know what a client executes and when the server has answered.
//!
//! Owns the messages of one connection as they pass, cut wherever the network cut them. Never changes a byte. What it
//! cannot read, since the two have agreed on TLS, it ignores: then nothing is ever recognised.

use std::collections::HashMap;

/// A statement on its way to the server, and which answer ends it.
#[derive(Debug, PartialEq, Eq)]
pub struct Executed {
    pub text: String,
    /// The answer with this number, as [`Session::answers`] counts, is the one that says that it is done.
    pub answer: usize,
}

/// One connection from its first byte on.
#[derive(Default)]
pub struct Session {
    requests: Vec<u8>,
    replies: Vec<u8>,
    started: bool,
    encrypted: bool,
    /// Requests for encryption, each answered by a single byte without a length.
    single_bytes: usize,
    /// The text of each prepared statement: it goes over the wire once, and later executions name it.
    statements: HashMap<String, String>,
    asked: usize,
    answers: usize,
}

const ASK_FOR_TLS: u32 = 80_877_103;
const ASK_FOR_GSS: u32 = 80_877_104;

impl Session {
    /// Takes bytes that go to the server, and tells what they execute.
    pub fn hear_client(&mut self, bytes: &[u8]) -> Vec<Executed> {
        self.requests.extend_from_slice(bytes);
        let mut executed = Vec::new();
        while !self.encrypted {
            if !self.started {
                let Some((code, length)) = first_message(&self.requests) else { break };
                self.requests.drain(..length);
                self.start(code);
                continue;
            }
            let Some((kind, length)) = message(&self.requests) else { break };
            let body: Vec<u8> = self.requests.drain(..length).skip(5).collect();
            executed.extend(self.request(kind, &body));
        }
        executed
    }

    fn start(&mut self, code: u32) {
        if code == ASK_FOR_TLS || code == ASK_FOR_GSS {
            self.single_bytes += 1;
        } else {
            self.started = true;
            // The server says that it is ready once before it is asked anything.
            self.asked += 1;
        }
    }

    fn request(&mut self, kind: u8, body: &[u8]) -> Option<Executed> {
        let mut texts = body.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned());
        match kind {
            // Parse: statement, text. It executes nothing yet.
            b'P' => {
                let statement = texts.next()?;
                self.statements.insert(statement, texts.next()?);
                None
            }
            // Bind: portal, statement. An Execute follows, which names only the portal, and then a Sync.
            b'B' => {
                let text = self.statements.get(&texts.nth(1)?)?.clone();
                Some(Executed { text, answer: self.asked + 1 })
            }
            // Query: text.
            b'Q' => {
                self.asked += 1;
                Some(Executed { text: texts.next()?, answer: self.asked })
            }
            // Sync and FunctionCall.
            b'S' | b'F' => {
                self.asked += 1;
                None
            }
            // Close: what is closed, as a letter, and its name.
            b'C' => {
                if let Some(statement) = texts.next()?.strip_prefix('S') {
                    self.statements.remove(statement);
                }
                None
            }
            _ => None,
        }
    }

    /// Takes bytes that come from the server.
    pub fn hear_server(&mut self, bytes: &[u8]) {
        self.replies.extend_from_slice(bytes);
        while !self.encrypted {
            if self.single_bytes > 0 && !self.replies.is_empty() {
                self.single_bytes -= 1;
                self.encrypted = self.replies.remove(0) != b'N';
                continue;
            }
            let Some((kind, length)) = message(&self.replies) else { break };
            self.replies.drain(..length);
            // ReadyForQuery ends every answer, and comes after the commit.
            self.answers += usize::from(kind == b'Z');
        }
    }

    /// How many answers have come back whole; the first is the greeting.
    pub fn answers(&self) -> usize {
        self.answers
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The first message of a client has no kind: its length, then a code.
fn first_message(bytes: &[u8]) -> Option<(u32, usize)> {
    let (length, code) = (number(bytes, 0)? as usize, number(bytes, 4)?);
    (bytes.len() >= length).then_some((code, length))
}

/// Kind and whole length of the first message in a buffer, if it is there to its end.
fn message(bytes: &[u8]) -> Option<(u8, usize)> {
    let length = number(bytes, 1)? as usize + 1;
    (bytes.len() >= length).then_some((*bytes.first()?, length))
}

#[cfg(test)]
mod tests {
    use super::{ASK_FOR_TLS, Executed, Session};

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [&[kind], &length[..], body].concat()
    }

    fn first(code: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 8).unwrap().to_be_bytes();
        [&length[..], &code.to_be_bytes(), body].concat()
    }

    fn ready() -> Vec<u8> {
        message(b'Z', b"I")
    }

    /// What sqlx says: asks for TLS, starts, prepares `SELECT append()`, executes it by name, executes another, commits.
    fn conversation() -> Vec<u8> {
        let parts = [
            first(ASK_FOR_TLS, b""),
            first(196_608, b"user\0postgres\0\0"),
            message(b'P', b"sqlx_s_1\0SELECT append($1)\0\0\0"),
            message(b'D', b"Ssqlx_s_1\0"),
            message(b'S', b""),
            message(b'B', b"\0sqlx_s_1\0\0\0\0\0\0\0"),
            message(b'E', b"\0\0\0\0\0"),
            message(b'S', b""),
            message(b'P', b"other\0SELECT 1\0\0\0"),
            message(b'B', b"\0other\0\0\0\0\0\0\0"),
            message(b'S', b""),
            message(b'Q', b"COMMIT\0"),
        ];
        parts.concat()
    }

    fn expected() -> Vec<Executed> {
        let executed = |text: &str, answer| Executed { text: text.into(), answer };
        vec![executed("SELECT append($1)", 3), executed("SELECT 1", 4), executed("COMMIT", 5)]
    }

    #[test]
    fn executions_are_known_by_the_text_that_was_prepared_earlier() {
        assert_eq!(Session::default().hear_client(&conversation()), expected());
    }

    #[test]
    fn it_does_not_matter_where_the_network_cuts() {
        for size in 1..40 {
            let mut session = Session::default();
            let whole: Vec<Executed> =
                conversation().chunks(size).flat_map(|piece| session.hear_client(piece)).collect();
            assert_eq!(whole, expected(), "pieces of {size}");
        }
    }

    #[test]
    fn a_closed_or_replaced_statement_is_forgotten() {
        let mut session = Session::default();
        session.hear_client(&first(196_608, b"\0"));
        session.hear_client(&message(b'P', b"a\0SELECT append()\0\0\0"));
        session.hear_client(&message(b'C', b"Sa\0"));
        assert_eq!(session.hear_client(&message(b'B', b"\0a\0\0\0")), []);
        session.hear_client(&message(b'P', b"\0SELECT append()\0\0\0"));
        session.hear_client(&message(b'P', b"\0SELECT 2\0\0\0"));
        assert_eq!(session.hear_client(&message(b'B', b"\0\0\0\0"))[0].text, "SELECT 2");
    }

    #[test]
    fn answers_are_counted_when_they_are_whole() {
        let mut session = Session::default();
        session.hear_client(&conversation());
        session.hear_server(b"N");
        session.hear_server(&message(b'R', &[0; 4]));
        session.hear_server(&ready());
        assert_eq!(session.answers(), 1);
        let answer = [message(b'1', b""), message(b'T', b"Z....Z"), ready()].concat();
        let (almost, last) = answer.split_at(answer.len() - 1);
        session.hear_server(almost);
        assert_eq!(session.answers(), 1, "the last byte is missing");
        session.hear_server(last);
        assert_eq!(session.answers(), 2);
    }

    #[test]
    fn what_is_encrypted_is_left_alone() {
        let mut session = Session::default();
        session.hear_client(&first(ASK_FOR_TLS, b""));
        session.hear_server(b"S");
        assert_eq!(session.hear_client(&message(b'Q', b"COMMIT\0")), []);
    }
}
