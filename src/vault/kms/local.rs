//! The local key-encryption key, for development and for estates without a KMS.
//!
//! Owns 32 bytes that come from a private file or from configuration. Never writes over a file that exists, and never
//! makes a new key where sealed rows exist: they would be lost without a word. Refuses to start when the file is
//! readable by others, has the wrong length, or is missing though it should not be. Whoever has both this key and the
//! database has everything; that is what a KMS is for.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{Blob, Kms, KmsError, Unwrapped, blob_header};
use crate::vault::{DataKeyBytes, VaultError, envelope};

const NAME: &str = "local";
const WRAP_INFO: &[u8] = b"vault-kek/v1";
const VERSION_INFO: &[u8] = b"vault-kek-version/v1";
const KEY_BYTES: usize = 32;

/// Why there is no local key-encryption key. Paths are shown, contents never.
#[derive(Debug, thiserror::Error)]
pub enum LocalKekError {
    /// A new key would make every sealed row unreadable.
    #[error("the key file `{}` is missing, but sealed rows exist: restore it, since nothing else opens them", path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// Others may read or write it.
    #[error("the key file `{}` has mode {mode:04o}, which lets others in: set it to 0600", path.display())]
    Mode {
        /// Where it is.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not a file of 32 bytes.
    #[error("the key file `{}` must be a regular file of {KEY_BYTES} bytes", path.display())]
    Length {
        /// Where it is.
        path: PathBuf,
    },
    /// Not the text of a key.
    #[error("the local key-encryption key must be {KEY_BYTES} bytes in hexadecimal or base64")]
    Text,
    /// The file system failed.
    #[error("the key file `{}` cannot be used", path.display())]
    Io {
        /// Where it is or should be.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The system gave no random bytes.
    #[error("the system's source of randomness failed")]
    Entropy,
}

/// A key-encryption key in this process's memory.
pub struct LocalKek {
    key: DataKeyBytes,
    version: String,
}

impl LocalKek {
    /// Reads the key file, or makes it (mode 0600) where it is missing and no sealed row exists yet. Blocks: start-up only.
    pub fn load(path: &Path, sealed_rows_exist: bool) -> Result<Self, LocalKekError> {
        match File::open(path) {
            Ok(file) => Self::read(file, path),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(path, error)),
            Err(_) if sealed_rows_exist => Err(LocalKekError::Missing { path: path.to_owned() }),
            Err(_) => Self::create(path),
        }
    }

    /// Takes the key from a configured text: 64 hexadecimal digits, or base64 of either alphabet.
    pub fn parse(text: &str) -> Result<Self, LocalKekError> {
        let text = text.trim();
        let bare = text.trim_end_matches('=');
        let bytes = hex::decode(text)
            .or_else(|_| general_purpose::STANDARD_NO_PAD.decode(bare))
            .or_else(|_| general_purpose::URL_SAFE_NO_PAD.decode(bare));
        let bytes = Zeroizing::new(bytes.map_err(|_| LocalKekError::Text)?);
        Self::new(DataKeyBytes::from_slice(&bytes).ok_or(LocalKekError::Text)?)
    }

    fn read(file: File, path: &Path) -> Result<Self, LocalKekError> {
        // Asked of the open file, so that nobody can swap it between the check and the read.
        let metadata = file.metadata().map_err(|error| io_error(path, error))?;
        if !metadata.is_file() {
            return Err(LocalKekError::Length { path: path.to_owned() });
        }
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & !0o600 != 0 {
            return Err(LocalKekError::Mode { path: path.to_owned(), mode });
        }
        // One byte more than allowed, so that a longer file is noticed and a huge one is not read.
        let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_BYTES + 1));
        let limit = KEY_BYTES as u64 + 1;
        file.take(limit).read_to_end(&mut bytes).map_err(|error| io_error(path, error))?;
        Self::new(DataKeyBytes::from_slice(&bytes).ok_or_else(|| LocalKekError::Length { path: path.to_owned() })?)
    }

    fn create(path: &Path) -> Result<Self, LocalKekError> {
        let key = DataKeyBytes::generate().map_err(|_| LocalKekError::Entropy)?;
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let mut file = opened.map_err(|error| io_error(path, error))?;
        // On the disk, name and content, before anything is sealed under it.
        let stored = file
            .write_all(key.expose())
            .and_then(|()| file.sync_all())
            .and_then(|()| File::open(folder_of(path))?.sync_all());
        if let Err(error) = stored {
            // Half a key would stop every later start; we made this file just now, so it is ours to remove.
            std::fs::remove_file(path).ok();
            return Err(io_error(path, error));
        }
        Self::new(key)
    }

    fn new(key: DataKeyBytes) -> Result<Self, LocalKekError> {
        // The version names the key without telling anything about it, so that a wrong key is said to be one.
        let mut version = [0; 8];
        let expanded = Hkdf::<Sha256>::new(None, key.expose()).expand(VERSION_INFO, &mut version);
        expanded.map_err(|_| LocalKekError::Text)?;
        Ok(Self { key, version: hex::encode(version) })
    }
}

#[async_trait]
impl Kms for LocalKek {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn wrap(&self, key: &DataKeyBytes, aad: &[u8]) -> Result<Vec<u8>, KmsError> {
        let mut blob = blob_header(NAME, &self.version)?;
        let bound = envelope::bind(&blob, &[aad]);
        envelope::seal_body(&mut blob, self.key.expose(), WRAP_INFO, &bound, key.expose())
            .map_err(|error| kms_error(&error))?;
        Ok(blob)
    }

    async fn unwrap(&self, wrapped: &[u8], aad: &[u8]) -> Result<Unwrapped, KmsError> {
        let blob = Blob::parse(wrapped)?;
        if blob.provider != NAME || blob.version != self.version {
            let (provider, version) = (blob.provider.to_owned(), blob.version.to_owned());
            return Err(KmsError::UnknownKey { provider, version });
        }
        let bound = envelope::bind(blob.header, &[aad]);
        let clear =
            envelope::open_body(self.key.expose(), WRAP_INFO, &bound, blob.body).map_err(|error| kms_error(&error))?;
        let key = DataKeyBytes::from_slice(clear.expose()).ok_or(KmsError::Refused)?;
        Ok(Unwrapped { key, stale: false })
    }
}

fn kms_error(error: &VaultError) -> KmsError {
    if *error == VaultError::Entropy { KmsError::Entropy } else { KmsError::Refused }
}

fn io_error(path: &Path, source: io::Error) -> LocalKekError {
    LocalKekError::Io { path: path.to_owned(), source }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        sync::atomic::{AtomicU32, Ordering},
    };

    use super::*;

    /// A folder of its own for one test, removed afterwards.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let name = format!("tappass-kek-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn file(&self) -> PathBuf {
            self.0.join("kek")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    fn put(path: &Path, bytes: &[u8], mode: u32) {
        fs::write(path, bytes).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn error_of(loaded: Result<LocalKek, LocalKekError>) -> LocalKekError {
        loaded.err().unwrap()
    }

    fn data_key() -> DataKeyBytes {
        DataKeyBytes::from_slice(&[5; 32]).unwrap()
    }

    #[test]
    fn a_first_start_makes_a_private_file_that_the_second_start_reads() {
        let folder = Folder::new();
        let made = LocalKek::load(&folder.file(), false).unwrap_or_else(|error| panic!("{error}"));
        let metadata = fs::metadata(folder.file()).unwrap();
        assert_eq!((metadata.len(), metadata.permissions().mode() & 0o7777), (32, 0o600));
        let read = LocalKek::load(&folder.file(), true).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((made.key.expose(), made.version), (read.key.expose(), read.version));
    }

    #[test]
    fn a_missing_file_is_not_replaced_where_sealed_rows_exist() {
        let folder = Folder::new();
        assert!(matches!(error_of(LocalKek::load(&folder.file(), true)), LocalKekError::Missing { .. }));
        assert!(!folder.file().exists());
    }

    #[test]
    fn a_file_that_lets_others_in_is_refused() {
        let folder = Folder::new();
        for mode in [0o640, 0o604, 0o644, 0o660, 0o700, 0o602] {
            put(&folder.file(), &[1; 32], mode);
            let error = error_of(LocalKek::load(&folder.file(), true));
            assert!(matches!(&error, LocalKekError::Mode { mode: found, .. } if *found == mode), "{mode:o}: {error}");
            fs::remove_file(folder.file()).unwrap();
        }
        put(&folder.file(), &[1; 32], 0o400);
        assert!(LocalKek::load(&folder.file(), true).is_ok());
    }

    #[test]
    fn a_file_of_another_length_or_kind_is_refused_and_left_alone() {
        let folder = Folder::new();
        for length in [0, 31, 33, 64] {
            put(&folder.file(), &vec![1; length], 0o600);
            let error = error_of(LocalKek::load(&folder.file(), false));
            assert!(matches!(error, LocalKekError::Length { .. }), "{length}: {error}");
            assert_eq!(fs::read(folder.file()).unwrap().len(), length);
        }
        assert!(matches!(error_of(LocalKek::load(&folder.0, false)), LocalKekError::Length { .. }));
    }

    #[test]
    fn a_folder_that_does_not_exist_is_said_to_be_the_trouble() {
        let folder = Folder::new();
        let error = error_of(LocalKek::load(&folder.0.join("absent/kek"), false));
        assert!(matches!(error, LocalKekError::Io { .. }), "{error}");
    }

    #[test]
    fn a_configured_key_is_read_in_every_usual_spelling() {
        let bytes: Vec<u8> = (224..=255).collect();
        let spellings = [
            hex::encode(&bytes),
            hex::encode_upper(&bytes),
            general_purpose::STANDARD.encode(&bytes),
            general_purpose::URL_SAFE.encode(&bytes),
            general_purpose::URL_SAFE_NO_PAD.encode(&bytes),
            format!("  {}\n", hex::encode(&bytes)),
        ];
        for text in spellings {
            let kek = LocalKek::parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(kek.key.expose().as_slice(), bytes);
        }
        for text in ["", "secret", &"ab".repeat(31), &"ab".repeat(33), &"*".repeat(43)] {
            assert!(matches!(LocalKek::parse(text), Err(LocalKekError::Text)), "{text}");
        }
    }

    #[tokio::test]
    async fn a_wrapped_key_names_its_wrapper_and_opens_only_with_its_context() {
        let kek = LocalKek::parse(&"07".repeat(32)).unwrap_or_else(|error| panic!("{error}"));
        let wrapped = kek.wrap(&data_key(), b"place").await.unwrap();
        let blob = Blob::parse(&wrapped).unwrap();
        assert_eq!((blob.provider, blob.version), (kek.name(), kek.version.as_str()));
        let unwrapped = kek.unwrap(&wrapped, b"place").await.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((unwrapped.key.expose(), unwrapped.stale), (data_key().expose(), false));
        assert_eq!(kek.unwrap(&wrapped, b"elsewhere").await.err(), Some(KmsError::Refused));
    }

    #[tokio::test]
    async fn every_bit_flip_in_a_wrapped_key_refuses() {
        let kek = LocalKek::parse(&"07".repeat(32)).unwrap_or_else(|error| panic!("{error}"));
        let wrapped = kek.wrap(&data_key(), b"place").await.unwrap();
        for bit in 0..wrapped.len() * 8 {
            let mut altered = wrapped.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            let error = kek.unwrap(&altered, b"place").await.err().unwrap();
            assert!(!error.is_retryable(), "bit {bit}: {error}");
        }
        for length in 0..wrapped.len() {
            assert!(kek.unwrap(&wrapped[..length], b"place").await.is_err(), "{length} bytes");
        }
    }

    #[tokio::test]
    async fn another_key_is_said_to_be_another_key() {
        let [one, two] = ["07", "08"].map(|byte| LocalKek::parse(&byte.repeat(32)).unwrap_or_else(|e| panic!("{e}")));
        let wrapped = one.wrap(&data_key(), b"place").await.unwrap();
        let error = two.unwrap(&wrapped, b"place").await.err().unwrap();
        assert!(matches!(error, KmsError::UnknownKey { .. }), "{error}");
    }
}
