//! The public key set of `/.well-known/jwks.json`.
//!
//! Owns its JSON in both directions. Never holds a private key. Keys of other kinds in a text are passed over, as RFC
//! 7517 asks; an Ed25519 key that is spoiled, named wrongly or meant for another use is an error, never a quiet
//! absence.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use super::{CryptoError, VerifyingKey};

/// Several public keys: the active one first by custom, retired ones after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Jwks {
    keys: Vec<VerifyingKey>,
}

#[derive(Serialize, Deserialize)]
struct KeySet {
    keys: Vec<Jwk>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Jwk {
    kty: String,
    crv: String,
    x: String,
    kid: String,
    alg: String,
    r#use: String,
}

impl Jwks {
    /// A set of keys; one that is there already is not taken twice.
    pub fn new(keys: impl IntoIterator<Item = VerifyingKey>) -> Self {
        let mut set = Self::default();
        for key in keys {
            set.insert(key);
        }
        set
    }

    /// Adds a key at the end, unless it is there.
    pub fn insert(&mut self, key: VerifyingKey) {
        if !self.keys.contains(&key) {
            self.keys.push(key);
        }
    }

    /// The keys in order.
    pub fn keys(&self) -> &[VerifyingKey] {
        &self.keys
    }

    /// The key of that name.
    pub fn find(&self, kid: &str) -> Option<&VerifyingKey> {
        self.keys.iter().find(|key| key.kid() == kid)
    }

    /// Reads `{"keys":[…]}`.
    pub fn parse(json: &str) -> Result<Self, CryptoError> {
        let set: KeySet = serde_json::from_str(json).map_err(|e| CryptoError::KeySet(e.to_string()))?;
        let ours = set.keys.iter().filter(|jwk| jwk.kty == "OKP" && jwk.crv == "Ed25519");
        Ok(Self::new(ours.map(read).collect::<Result<Vec<_>, _>>()?))
    }

    /// Renders `{"keys":[…]}`.
    pub fn to_json(&self) -> serde_json::Value {
        let keys: Vec<_> = self.keys.iter().map(VerifyingKey::to_jwk).collect();
        serde_json::json!({ "keys": keys })
    }
}

impl VerifyingKey {
    /// The key as a JSON Web Key (RFC 8037).
    pub fn to_jwk(&self) -> serde_json::Value {
        serde_json::json!({
            "kty": "OKP",
            "crv": "Ed25519",
            "x": URL_SAFE_NO_PAD.encode(self.as_bytes()),
            "kid": self.kid(),
            "alg": "EdDSA",
            "use": "sig",
        })
    }
}

fn read(jwk: &Jwk) -> Result<VerifyingKey, CryptoError> {
    let spoiled = || CryptoError::KeySet(format!("the Ed25519 key named `{}` is spoiled", jwk.kid.escape_debug()));
    let bytes = URL_SAFE_NO_PAD.decode(&jwk.x).map_err(|_| spoiled())?;
    let key = VerifyingKey::from_slice(&bytes).map_err(|_| spoiled())?;
    let fits = |said: &str, must: &str| said.is_empty() || said == must;
    // A name that is not the key's own would let one key answer for another.
    if fits(&jwk.kid, key.kid()) && fits(&jwk.alg, "EdDSA") && fits(&jwk.r#use, "sig") {
        Ok(key)
    } else {
        Err(spoiled())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{Seed, SigningKey};

    fn key(seed: u8) -> VerifyingKey {
        SigningKey::from_seed(&Seed::new([seed; 32])).unwrap().public().clone()
    }

    #[test]
    fn a_set_comes_back_from_its_json() {
        let set = Jwks::new([key(1), key(2), key(1)]);
        let back = Jwks::parse(&set.to_json().to_string()).unwrap();
        assert_eq!(back, set);
        assert_eq!(back.keys().len(), 2);
        assert_eq!(back.find(key(2).kid()), Some(&key(2)));
        assert_eq!(back.find("0000000000000000"), None);
    }

    #[test]
    fn keys_of_other_kinds_are_passed_over() {
        let mut json = Jwks::new([key(1)]).to_json();
        json["keys"].as_array_mut().unwrap().push(serde_json::json!({"kty": "RSA", "n": "…", "e": "AQAB", "x5c": []}));
        assert_eq!(Jwks::parse(&json.to_string()).unwrap().keys(), [key(1)]);
    }

    #[test]
    fn a_spoiled_or_misnamed_key_is_an_error() {
        for (field, value) in [("x", "AAAA"), ("x", "!"), ("kid", "0000000000000000"), ("alg", "none"), ("use", "enc")]
        {
            let mut json = Jwks::new([key(1)]).to_json();
            json["keys"][0][field] = value.into();
            assert!(Jwks::parse(&json.to_string()).is_err(), "{field} = {value}");
        }
        assert!(Jwks::parse("[]").is_err());
    }
}
