//! How a coordinator on this machine is found: it writes its URL into its state folder while it lives.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

const FILE_NAME: &str = "coordinator.url";
/// No URL of ours is longer.
const URL_BYTES_MAX: u64 = 256;

/// The URL of the coordinator that holds `state_dir` now, if there is one.
///
/// A process that was killed leaves its file behind. So the file counts only while somebody holds a lock on it, and a
/// lock ends with its process, however that ends.
pub fn live_url(state_dir: &Path) -> Option<String> {
    let file = File::open(state_dir.join(FILE_NAME)).ok()?;
    match file.try_lock_shared() {
        // Nobody holds it: what it says is of the past.
        Ok(()) | Err(TryLockError::Error(_)) => return None,
        Err(TryLockError::WouldBlock) => {}
    }
    let mut url = String::new();
    file.take(URL_BYTES_MAX).read_to_string(&mut url).ok()?;
    // A coordinator that is just starting has not written it yet.
    Some(url.trim().to_owned()).filter(|url| !url.is_empty())
}

/// The file with the URL, locked and written.
#[derive(Debug)]
pub(crate) struct Address {
    path: PathBuf,
    _locked: File,
}

impl Address {
    /// Says that the coordinator that holds `state_dir` listens on `address`. The caller must hold the folder.
    pub(crate) fn publish(state_dir: &Path, address: SocketAddr) -> io::Result<Self> {
        let path = state_dir.join(FILE_NAME);
        let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
        // Only those who look hold it, and they hold it for moments.
        file.lock()?;
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(url(address).as_bytes())?;
        Ok(Self { path, _locked: file })
    }
}

impl Drop for Address {
    fn drop(&mut self) {
        // What cannot be removed is unlocked all the same, and then means nothing.
        let _ = fs::remove_file(&self.path);
    }
}

/// A URL that reaches `address` from this machine.
fn url(address: SocketAddr) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!("http://{}\n", SocketAddr::new(ip, address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_counts_while_its_writer_lives() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(live_url(folder.path()), None);
        let address = Address::publish(folder.path(), "0.0.0.0:7070".parse().unwrap()).unwrap();
        assert_eq!(live_url(folder.path()).as_deref(), Some("http://127.0.0.1:7070"));
        drop(address);
        assert_eq!(live_url(folder.path()), None);
        fs::write(folder.path().join(FILE_NAME), "http://127.0.0.1:7071\n").unwrap();
        assert_eq!(live_url(folder.path()), None, "a killed process leaves its file behind");
        let _address = Address::publish(folder.path(), "[::1]:7072".parse().unwrap()).unwrap();
        assert_eq!(live_url(folder.path()).as_deref(), Some("http://[::1]:7072"));
    }
}
