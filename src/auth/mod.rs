//! Who is calling: keys and principals.
//!
//! Owns the form of keys (organization and checksum inside), their hashes and the roles. Never looks anything up: the
//! snapshot does. Nonsense is refused by its form alone, so that refusing costs no read.

mod keys;
mod principal;

pub use keys::{KeyText, PresentedKey, hash_key};
pub use principal::{AdminKey, Principal, Role};
