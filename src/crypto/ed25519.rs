//! Ed25519 signing and verifying keys.
//!
//! Owns their bytes and their names (`kid`). Never prints a private key (there is no `Debug` to do it with) and never
//! keeps a seed: whoever makes one seals it. A signature that does not verify is `false`; bytes that are no key are an
//! error.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, ParsedPublicKey};
use zeroize::Zeroizing;

use super::{CryptoError, sha256};

/// The private half as 32 random bytes, wiped when dropped.
pub type Seed = Zeroizing<[u8; 32]>;

/// A private key, ready to sign.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: VerifyingKey,
}

impl SigningKey {
    /// A fresh seed from the system's chance. The caller seals it, or loses it.
    pub fn generate() -> Result<Seed, CryptoError> {
        let mut seed = Seed::default();
        getrandom::fill(seed.as_mut_slice()).map_err(CryptoError::Random)?;
        Ok(seed)
    }

    /// The key of a seed.
    pub fn from_seed(seed: &Seed) -> Result<Self, CryptoError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_slice()).map_err(|_| CryptoError::Key)?;
        let public = VerifyingKey::from_slice(pair.public_key().as_ref())?;
        Ok(Self { pair, public })
    }

    /// Signs a message of any length.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes.copy_from_slice(self.pair.sign(message).as_ref());
        bytes
    }

    /// The public half.
    pub fn public(&self) -> &VerifyingKey {
        &self.public
    }
}

/// A public key.
#[derive(Clone)]
pub struct VerifyingKey {
    bytes: [u8; 32],
    kid: Box<str>,
    parsed: ParsedPublicKey,
}

impl VerifyingKey {
    /// Reads the 32 bytes of RFC 8032.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, CryptoError> {
        let parsed = ParsedPublicKey::new(&ED25519, bytes).map_err(|_| CryptoError::Key)?;
        let kid = sha256(&[&bytes]).to_string().chars().take(16).collect::<String>().into_boxed_str();
        Ok(Self { bytes, kid, parsed })
    }

    /// Reads exactly 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, CryptoError> {
        Self::from_bytes(bytes.try_into().map_err(|_| CryptoError::Key)?)
    }

    /// Whether this key's private half signed the message.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        self.parsed.verify_sig(message, signature).is_ok()
    }

    /// The key's name: the first 16 hexadecimal digits of SHA-256 over its bytes.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The 32 bytes of RFC 8032.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.bytes
    }
}

impl PartialEq for VerifyingKey {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for VerifyingKey {}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({})", self.kid)
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signature, Signer as _};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_second_library_makes_and_takes_the_same_signatures(
            seed: [u8; 32],
            message in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let ours = SigningKey::from_seed(&Seed::new(seed)).unwrap();
            let theirs = ed25519_dalek::SigningKey::from_bytes(&seed);
            let signature = ours.sign(&message);
            prop_assert_eq!(*ours.public().as_bytes(), theirs.verifying_key().to_bytes());
            prop_assert_eq!(signature, theirs.sign(&message).to_bytes());
            let second = theirs.verifying_key().verify_strict(&message, &Signature::from_bytes(&signature));
            prop_assert!(second.is_ok());
            prop_assert!(ours.public().verify(&message, &signature));
        }

        #[test]
        fn a_signature_with_one_bit_turned_is_refused_by_both(seed: [u8; 32], bit in 0_usize..512) {
            let ours = SigningKey::from_seed(&Seed::new(seed)).unwrap();
            let theirs = ed25519_dalek::SigningKey::from_bytes(&seed).verifying_key();
            let mut signature = ours.sign(b"message");
            signature[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!ours.public().verify(b"message", &signature));
            prop_assert!(theirs.verify_strict(b"message", &Signature::from_bytes(&signature)).is_err());
        }
    }

    #[test]
    fn the_first_test_vector_of_rfc_8032_holds() {
        let seed = hex::decode("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap();
        let key = SigningKey::from_seed(&Seed::new(seed.try_into().unwrap())).unwrap();
        let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        assert_eq!(hex::encode(key.public().as_bytes()), public);
        assert!(hex::encode(key.sign(b"")).starts_with("e5564300c360ac729086e2cc806e828a"));
    }

    #[test]
    fn seeds_differ_and_short_keys_are_refused() {
        assert_ne!(*SigningKey::generate().unwrap(), *SigningKey::generate().unwrap());
        assert!(VerifyingKey::from_slice(&[1; 31]).is_err());
        assert!(!SigningKey::from_seed(&Seed::new([1; 32])).unwrap().public().verify(b"", &[0; 63]));
    }

    #[test]
    fn a_key_is_named_by_its_hash() {
        let key = SigningKey::from_seed(&Seed::new([7; 32])).unwrap();
        let hash = sha256(&[key.public().as_bytes()]).to_string();
        assert_eq!(key.public().kid().len(), 16);
        assert!(hash.starts_with(key.public().kid()));
    }
}
