//! Decoded images in memory that several processes of one user see.
//!
//! The first process that needs a data set decodes it into memory that has a name in `/proc` only, so nothing is left behind
//! by a process that is killed. The memory is sealed: nobody can change it any more, whoever maps it. Others find it by that
//! name, which says of which files it was made, and keep it alive by mapping it.

use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use domain::spec::DataSource;
use memmap2::Mmap;
use rustix::fs::{MemfdFlags, SealFlags};

use crate::error::ImageShape;
use crate::folder;
use crate::images::{Images, Pixels};

/// How long a process waits for another one that decodes the same data before it decodes them itself: that one may have been
/// halted in the middle.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often it looks meanwhile.
const PERIOD: Duration = Duration::from_millis(20);

/// Which files decoded images were made of, in which state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(blake3::Hash);

impl Key {
    /// Of all files that `source` names; `None` if they cannot be looked at.
    pub(crate) fn of(source: &DataSource, channels: u32) -> Option<Self> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(concat!("phalanx ", env!("CARGO_PKG_VERSION")).as_bytes());
        hasher.update(&channels.to_le_bytes());
        let mut add = |path: &Path, metadata: &Metadata| {
            let name = path.as_os_str().as_encoded_bytes();
            hasher.update(&(name.len() as u64).to_le_bytes());
            hasher.update(name);
            // The time at which a file was changed can be set back, that of the change to its entry cannot.
            let times = [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()];
            times.iter().for_each(|time| _ = hasher.update(&time.to_le_bytes()));
            let place = [metadata.dev(), metadata.ino(), metadata.len()];
            place.iter().for_each(|number| _ = hasher.update(&number.to_le_bytes()));
        };
        match source {
            DataSource::Idx { images, labels } => {
                for path in [images, labels] {
                    add(&path.canonicalize().ok()?, &fs::metadata(path).ok()?);
                }
            }
            DataSource::ImageFolder { path } => {
                let root = path.canonicalize().ok()?;
                add(&root, &fs::metadata(&root).ok()?);
                let (_, files) = folder::list(&root).ok()?;
                for (file, _) in files {
                    add(&file, &fs::metadata(&file).ok()?);
                }
            }
        }
        Some(Self(hasher.finalize()))
    }

    /// The memory's name.
    fn name(self) -> String {
        format!("phalanx-data-{}", self.0.to_hex())
    }
}

/// Pixels in shared memory.
#[derive(Debug)]
pub(crate) struct SharedPixels {
    map: Mmap,
    /// Where they begin.
    begin: usize,
    /// Others find the memory as long as it is open.
    _file: File,
}

impl SharedPixels {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map[self.begin..]
    }
}

/// Keeps other processes from decoding the same data at the same time while it lives; `None` where that cannot be had.
#[expect(clippy::disallowed_methods, reason = "a lock that is given up after a while can only be asked for again")]
pub(crate) fn lock(source: &DataSource) -> Option<File> {
    let file = File::open(place(source)).ok()?;
    let began = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Some(file),
            Err(TryLockError::WouldBlock) if began.elapsed() < PATIENCE => std::thread::sleep(PERIOD),
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => return None,
        }
    }
}

/// The file or folder that messages name.
fn place(source: &DataSource) -> &PathBuf {
    match source {
        DataSource::Idx { images, .. } => images,
        DataSource::ImageFolder { path } => path,
    }
}

/// The images that a process of this user shares under `key`.
pub(crate) fn find(key: Key, source: &DataSource) -> Option<Images> {
    let target = format!("/memfd:{} (deleted)", key.name());
    let user = rustix::process::geteuid().as_raw();
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let is_process = process.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
        if !is_process || process.metadata().map_or(true, |metadata| metadata.uid() != user) {
            continue;
        }
        for entry in fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten() {
            // What is not ours is not even opened, since that may have effects.
            if fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str() == target.as_str())
                && let Ok(file) = File::open(entry.path())
                && let Some(images) = open(file, place(source))
            {
                return Some(images);
            }
        }
    }
    None
}

/// Puts images into memory that others find under `key`; where that cannot be done they stay as they are.
pub(crate) fn share(key: Key, images: Images) -> Images {
    match write(key, &images) {
        Ok(file) => open(file, &images.path).unwrap_or(images),
        Err(_) => images,
    }
}

const SEALS: SealFlags = SealFlags::WRITE.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::SEAL);

fn write(key: Key, images: &Images) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(rustix::fs::memfd_create(key.name(), flags)?);
    let Images { path: _, shape, pixels, labels, class_names } = images;
    let mut head = Vec::new();
    let sizes = [shape.height, shape.width, shape.channels, labels.len() as u32, class_names.len() as u32];
    sizes.iter().for_each(|size| head.extend(size.to_le_bytes()));
    for name in class_names {
        head.extend((name.len() as u32).to_le_bytes());
        head.extend(name.as_bytes());
    }
    labels.iter().for_each(|label| head.extend(label.to_le_bytes()));
    file.write_all(&head)?;
    file.write_all(pixels)?;
    rustix::fs::fcntl_add_seals(&file, SEALS)?;
    Ok(file)
}

/// What [`write()`] wrote, if it is that.
fn open(file: File, path: &Path) -> Option<Images> {
    if !rustix::fs::fcntl_get_seals(&file).ok()?.contains(SEALS) {
        return None;
    }
    // SAFETY: the seals say that nobody can change or cut the memory any more, and cannot be taken away.
    let map = unsafe { Mmap::map(&file) }.ok()?;
    let mut rest = Rest(&map);
    let [height, width, channels, count, names] = [(); 5].map(|()| rest.number());
    let shape = ImageShape { height: height?, width: width?, channels: channels? };
    let class_names = (0..names?).map(|_| {
        let length = rest.number()?;
        String::from_utf8(rest.take(length as usize)?.to_vec()).ok()
    });
    let class_names = class_names.collect::<Option<Vec<String>>>()?;
    let count = count? as usize;
    let labels = rest.take(count.checked_mul(4)?)?;
    let labels = labels.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
    let Rest(pixels) = rest;
    if Some(pixels.len()) != count.checked_mul(shape.values() as usize) {
        return None;
    }
    let begin = map.len() - pixels.len();
    let pixels = Pixels::Shared(SharedPixels { map, begin, _file: file });
    Some(Images { path: path.to_owned(), shape, pixels, labels, class_names })
}

/// What is still to be read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u32> {
        self.take(4).map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Folder;

    fn named() -> (Key, Images) {
        let images = Images {
            path: PathBuf::from("flowers"),
            shape: ImageShape { height: 1, width: 2, channels: 3 },
            pixels: Pixels::Own((0..18).collect()),
            labels: vec![1, 0, 1],
            class_names: vec!["daisy".to_owned(), "tulip \u{1f337}".to_owned()],
        };
        (Key(blake3::hash(&std::process::id().to_le_bytes())), images)
    }

    #[test]
    fn images_come_back_as_they_were_and_cannot_be_changed() {
        let (key, images) = named();
        let source = DataSource::ImageFolder { path: "flowers".into() };
        let shared = share(key, Images { pixels: Pixels::Own(images.pixels.to_vec()), ..named().1 });
        let Pixels::Shared(pixels) = &shared.pixels else { panic!("it was shared") };
        assert!((&pixels._file).write_all(b"x").is_err());
        assert!(pixels._file.set_len(0).is_err());
        let found = find(key, &source).expect("it is open in this process");
        for images_again in [&shared, &found] {
            assert_eq!(images_again.shape, images.shape);
            assert_eq!(&*images_again.pixels, &*images.pixels);
            assert_eq!((&images_again.labels, &images_again.class_names), (&images.labels, &images.class_names));
        }
        drop((shared, found));
        assert!(find(key, &source).is_none());
    }

    #[test]
    fn memory_that_is_not_sealed_or_holds_something_else_is_not_used() {
        let (key, images) = named();
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let whole = fs::read(format!("/proc/self/fd/{}", {
            use std::os::fd::IntoRawFd;
            write(key, &images).unwrap().into_raw_fd()
        }))
        .unwrap();
        let made = |bytes: &[u8], seals| {
            let mut file = File::from(rustix::fs::memfd_create("phalanx-data-test", flags).unwrap());
            file.write_all(bytes).unwrap();
            rustix::fs::fcntl_add_seals(&file, seals).unwrap();
            open(file, Path::new("x"))
        };
        assert!(made(&whole, SEALS).is_some());
        assert!(made(&whole, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL).is_none());
        for length in 0..whole.len() {
            assert!(made(&whole[..length], SEALS).is_none(), "cut off after {length} bytes");
        }
        let mut promises_more = whole.clone();
        promises_more[16..20].fill(0xff);
        assert!(made(&promises_more, SEALS).is_none());
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "two times that a file system tells apart")]
    fn every_change_of_the_files_is_seen() {
        let folder = Folder::new();
        let source = folder.numbered(8, 2);
        let key = Key::of(&source, 1).unwrap();
        assert_eq!(Key::of(&source, 1), Some(key));
        assert_ne!(Key::of(&source, 3), Some(key));
        // The same bytes, but nobody knows that. File systems tell times apart that are some milliseconds apart.
        std::thread::sleep(Duration::from_millis(20));
        folder.numbered(8, 2);
        assert_ne!(Key::of(&source, 1), Some(key));
        fs::remove_file(folder.path().join("labels")).unwrap();
        assert_eq!(Key::of(&source, 1), None);
    }
}
