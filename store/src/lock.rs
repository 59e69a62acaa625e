use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::Path;

use crate::StoreError;

/// Exclusive use of a state folder, by a lock of the operating system on a file in it. The lock ends with the process,
/// however that ends; the file itself stays and means nothing.
#[derive(Debug)]
pub(crate) struct FolderLock {
    _file: File,
}

const FILE_NAME: &str = "phalanx.lock";

impl FolderLock {
    /// Makes the folder if need be and locks it.
    pub(crate) fn take(folder: &Path) -> Result<Self, StoreError> {
        let cannot = |source| StoreError::Folder { folder: folder.to_owned(), source };
        fs::create_dir_all(folder).map_err(cannot)?;
        let path = folder.join(FILE_NAME);
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(cannot)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse { folder: folder.to_owned() }),
            Err(TryLockError::Error(source)) => Err(cannot(source)),
        }
    }
}
