//! `burn-dataset`'s cache folder and its downloads, without its panics and without a hang.

use std::env;
use std::ffi::OsString;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use super::DataError;
use crate::quiet::catch;

/// Longest wait for an answer of the download server.
const REACH: Duration = Duration::from_secs(5);
/// Longest wait for a whole download (CIFAR: 130 to 170 MB).
const DOWNLOAD: Duration = Duration::from_secs(30 * 60);

/// The folder in which `burn-dataset` keeps its sets.
pub(crate) fn root() -> Option<PathBuf> {
    root_from(
        env::var_os("XDG_CACHE_HOME"),
        env::home_dir(),
        env::var_os("LOCALAPPDATA"),
    )
}

/// The folder in which this project keeps what can be made again.
pub(crate) fn own_folder() -> Option<PathBuf> {
    root().map(|root| root.with_file_name("burn-sparse"))
}

fn root_from(
    xdg: Option<OsString>,
    home: Option<PathBuf>,
    local: Option<OsString>,
) -> Option<PathBuf> {
    let base = if cfg!(windows) {
        local.map(PathBuf::from)
    } else if cfg!(target_os = "macos") {
        home.map(|home| home.join("Library/Caches"))
    } else {
        let xdg = xdg.map(PathBuf::from).filter(|path| path.is_absolute());
        xdg.or_else(|| home.map(|home| home.join(".cache")))
    };
    base.map(|base| base.join("burn-dataset"))
}

/// A data set that `burn-dataset` can download.
pub(crate) struct Remote {
    /// The data set's name.
    pub(crate) dataset: &'static str,
    /// The server it comes from.
    pub(crate) host: &'static str,
    /// Where the set lies afterwards, below the cache folder.
    pub(crate) folder: &'static str,
    /// Runs the download; may panic.
    pub(crate) download: fn(),
}

impl Remote {
    /// The folder of the set in the cache, downloaded if `present` does not find it there.
    pub(crate) fn fetch(
        &self,
        offline: bool,
        present: impl Fn(&PathBuf) -> bool,
    ) -> Result<PathBuf, DataError> {
        let Some(folder) = root().map(|root| root.join(self.folder)) else {
            return Err(self.missing(vec![
                "this system has no cache folder (is HOME set?)".into(),
            ]));
        };
        if present(&folder) {
            return Ok(folder);
        }
        let mut tried = vec![format!("not in the cache ({})", folder.display())];
        if offline {
            tried.push("no download, as --offline asks".into());
            return Err(self.missing(tried));
        }
        match self.try_download() {
            Ok(()) if present(&folder) => Ok(folder),
            Ok(()) => {
                tried.push("the download left nothing usable".into());
                Err(self.missing(tried))
            }
            Err(reason) => {
                tried.push(format!("download from {} failed: {reason}", self.host));
                Err(self.missing(tried))
            }
        }
    }

    fn missing(&self, tried: Vec<String>) -> DataError {
        let help = match root() {
            Some(root) => format!(
                "Run once with a network, copy the set to {}, or point --data at a copy",
                root.join(self.folder).display()
            ),
            None => "Point --data at a copy".into(),
        };
        DataError::Missing {
            dataset: self.dataset,
            tried,
            help,
        }
    }

    /// Downloads in a thread of its own: `burn-dataset` panics on any failure and waits for a
    /// silent server for ever.
    fn try_download(&self) -> Result<(), String> {
        let proxied = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
            .iter()
            .any(|name| env::var_os(name).is_some_and(|value| !value.is_empty()));
        if !proxied {
            reach(self.host)?;
        }
        catch(DOWNLOAD, self.download)
    }
}

/// Whether a connection to the server can be made soon. Resolving a name has no time limit of its
/// own, so the whole attempt gets one.
fn reach(host: &'static str) -> Result<(), String> {
    let connect = move || {
        let addresses = (host, 443).to_socket_addrs().map_err(|e| e.to_string())?;
        let mut last = "the name has no address".to_string();
        for address in addresses.take(4) {
            match TcpStream::connect_timeout(&address, REACH) {
                Ok(_) => return Ok(()),
                Err(error) => last = error.to_string(),
            }
        }
        Err(last)
    };
    catch(4 * REACH, connect)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(all(unix, not(target_os = "macos")))]
    fn the_cache_follows_xdg_and_home() {
        let home = || Some(PathBuf::from("/home/u"));
        let at = |xdg: Option<&str>| root_from(xdg.map(Into::into), home(), None);
        assert_eq!(
            at(None).unwrap(),
            PathBuf::from("/home/u/.cache/burn-dataset")
        );
        assert_eq!(at(Some("/x")).unwrap(), PathBuf::from("/x/burn-dataset"));
        assert_eq!(at(Some("relative")), at(None));
        assert_eq!(root_from(None, None, None), None);
    }

    #[test]
    fn offline_says_what_was_tried_and_how_to_get_the_data() {
        let remote = Remote {
            dataset: "nothing",
            host: "localhost",
            folder: "no-such-set",
            download: || panic!("must not be called"),
        };
        let error = remote.fetch(true, |_| false).unwrap_err();
        assert!(error.is_missing());
        let text = error.to_string();
        assert!(
            text.contains("--offline") && text.contains("--data"),
            "{text}"
        );
    }
}
