use std::fmt;
use std::sync::Arc;

use domain::spec::{DataSource, DataSpec};

use crate::dataset::Dataset;
use crate::error::DataError;
use crate::images::Images;
use crate::shared::{self, Key};

/// The images that a process has read, kept for whoever opens the same data next: the trials of a sweep read the same files.
///
/// Those of the data set that was opened last stay in memory. Decoded images lie in memory that other processes of
/// this user on this host find and use, too, so that the workers of a host read and decode a data set once together.
/// A source that has changed since, by the time, size or number of its files, is read anew.
#[derive(Debug, Default)]
pub struct Library {
    kept: Vec<(Key, Arc<Images>)>,
}

/// Where the images of a data set were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In the memory of this process.
    Kept,
    /// In memory that another process shares.
    Shared,
    /// In their files.
    Files,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kept => "the trial before",
            Self::Shared => "the memory of another worker",
            Self::Files => "their files",
        })
    }
}

impl Library {
    /// Opens what `spec` names: see [`Dataset::open`].
    pub fn open(&mut self, spec: &DataSpec, seed: u64) -> Result<(Dataset, Origin), DataError> {
        let mut used = Vec::new();
        let mut origin = Origin::Kept;
        let mut read = |source: &DataSource, channels: u32| {
            let key = Key::of(source, channels);
            let (images, from) = self.images(key, source, channels)?;
            if from != Origin::Kept {
                origin = from;
            }
            used.extend(key.map(|key| (key, images.clone())));
            Ok(images)
        };
        let dataset = Dataset::open_with(spec, seed, &mut read);
        self.kept = used;
        Ok((dataset?, origin))
    }

    fn images(&self, key: Option<Key>, source: &DataSource, channels: u32) -> Result<(Arc<Images>, Origin), DataError> {
        let Some(key) = key else {
            // Reading says better what is wrong with it.
            return Ok((Arc::new(Images::read(source, channels)?), Origin::Files));
        };
        if let Some((_, images)) = self.kept.iter().find(|(kept, _)| *kept == key) {
            return Ok((images.clone(), Origin::Kept));
        }
        if let Some(images) = shared::find(key, source) {
            return Ok((Arc::new(images), Origin::Shared));
        }
        // Who comes second waits, and then finds what the first one shares.
        let _locked = shared::lock(source);
        if let Some(images) = shared::find(key, source) {
            return Ok((Arc::new(images), Origin::Shared));
        }
        let images = Images::read(source, channels)?;
        Ok((Arc::new(shared::share(key, images)), Origin::Files))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Folder, spec};

    fn opened(library: &mut Library, spec: &DataSpec) -> (Vec<f32>, Origin) {
        let (dataset, origin) = library.open(spec, 7).unwrap();
        let samples: Vec<u64> = (0..dataset.train.len()).collect();
        (dataset.train.batch(&samples, None).unwrap().images, origin)
    }

    #[test]
    fn data_are_read_once_and_anew_when_they_change() {
        let fixture = Folder::new();
        let source = fixture.numbered(40, 4);
        let spec = spec(source);
        let mut first = Library::default();
        let (images, origin) = opened(&mut first, &spec);
        assert_eq!(origin, Origin::Files);
        assert_eq!(opened(&mut first, &spec), (images.clone(), Origin::Kept));
        // A library that kept nothing is like another process: what it finds is the memory of the first one.
        let mut second = Library::default();
        assert_eq!(opened(&mut second, &spec), (images.clone(), Origin::Shared));
        // It does not need the first one from then on.
        drop(first);
        assert_eq!(opened(&mut second, &spec), (images.clone(), Origin::Kept));
        assert_eq!(opened(&mut Library::default(), &spec), (images, Origin::Shared));

        let changed = crate::fixture::spec(fixture.numbered(44, 4));
        assert_eq!(changed, spec, "the same files");
        let (images, origin) = opened(&mut second, &spec);
        assert_eq!((images.len(), origin), (33 * 2, Origin::Files));
        drop(second);
        assert_eq!(opened(&mut Library::default(), &spec).1, Origin::Files, "memory that nobody holds is gone");
    }
}
