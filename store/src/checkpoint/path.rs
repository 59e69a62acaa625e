//! The names of the files of a checkpoint: made from validated names and numbers, and read back strictly.

use domain::ids::{Generation, Step, TrialId};

/// The folder of one save: all its files are in it, and no other save's, so that it can be removed while another save
/// is being written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Folder {
    pub(super) trial: TrialId,
    pub(super) step: Step,
    pub(super) generation: Generation,
}

const MANIFEST: &str = "manifest.json";
const PART_SUFFIX: &str = ".safetensors";

/// Digits of a step or generation, so that a listing by name is one by number. Longer numbers are written as they are.
const DIGITS: usize = 10;

/// Digits of a rank.
const RANK_DIGITS: usize = 5;

/// The path of a part.
pub(super) fn part(trial: &TrialId, generation: Generation, step: Step, rank: u32, blake3: &str) -> String {
    debug_assert!(is_blake3(blake3), "{blake3:?} is not a BLAKE3 hash");
    let folder = Folder { trial: trial.clone(), step, generation }.path();
    format!("{folder}/{rank:0RANK_DIGITS$}-{blake3}{PART_SUFFIX}")
}

/// Whether `text` is a BLAKE3 hash as we write it: 64 lower-case hexadecimal digits.
pub(super) fn is_blake3(text: &str) -> bool {
    text.len() == 2 * blake3::OUT_LEN && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

impl Folder {
    pub(super) fn path(&self) -> String {
        format!("{}/step-{:0DIGITS$}-generation-{:0DIGITS$}", self.trial, self.step.0, self.generation.0)
    }

    pub(super) fn manifest(&self) -> String {
        format!("{}/{MANIFEST}", self.path())
    }

    /// The folder of a manifest, if `path` is the path of one.
    pub(super) fn of_manifest(path: &str) -> Option<Self> {
        let (folder, name) = Self::split(path)?;
        (name == MANIFEST).then_some(folder)
    }

    /// Folder and hash of a part, if `path` is the path of one.
    pub(super) fn of_part(path: &str) -> Option<(Self, &str)> {
        let (folder, name) = Self::split(path)?;
        let (rank, blake3) = name.strip_suffix(PART_SUFFIX)?.split_once('-')?;
        let rank: u32 = rank.parse().ok()?;
        let canonical = is_blake3(blake3) && part(&folder.trial, folder.generation, folder.step, rank, blake3) == path;
        canonical.then_some((folder, blake3))
    }

    /// The folder of any file that this store writes: a part, a manifest, or one of their temporary files, which
    /// `object_store` names `FILE#NUMBER`.
    pub(super) fn of_file(path: &str) -> Option<Self> {
        let whole = match path.split_once('#') {
            Some((whole, number)) if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) => whole,
            Some(_) => return None,
            None => path,
        };
        Self::of_manifest(whole).or_else(|| Self::of_part(whole).map(|(folder, _)| folder))
    }

    fn split(path: &str) -> Option<(Self, &str)> {
        let (folder_path, name) = path.rsplit_once('/')?;
        let (trial, numbers) = folder_path.rsplit_once("/step-")?;
        let (step, generation) = numbers.split_once("-generation-")?;
        let folder = Self {
            trial: trial.parse().ok()?,
            step: Step(step.parse().ok()?),
            generation: Generation(generation.parse().ok()?),
        };
        // Numbers can be written in many ways; only ours counts.
        (folder.path() == folder_path).then_some((folder, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_back_and_nothing_else_is() {
        let trial: TrialId = "digits.v1/0".parse().unwrap();
        let hash = "0123456789abcdef".repeat(4);
        let folder = Folder { trial: trial.clone(), step: Step(12), generation: Generation(3) };
        let path = part(&trial, Generation(3), Step(12), 7, &hash);
        assert_eq!(path, format!("digits.v1/0/step-0000000012-generation-0000000003/00007-{hash}.safetensors"));
        assert_eq!(Folder::of_part(&path), Some((folder.clone(), hash.as_str())));
        assert_eq!(Folder::of_manifest(&folder.manifest()), Some(folder.clone()));
        assert_eq!(Folder::of_file(&format!("{path}#3")), Some(folder.clone()));
        let large = Folder { step: Step(u64::MAX), ..folder.clone() };
        assert_eq!(Folder::of_manifest(&large.manifest()), Some(large));

        let manifest = folder.manifest();
        for bad in [
            "",
            "/",
            "manifest.json",
            "/etc/passwd",
            "../digits/0/step-0000000012-generation-0000000003/manifest.json",
            "digits/0/step-12-generation-3/manifest.json",
            "digits/0/step-+000000012-generation-0000000003/manifest.json",
            "digits/+0/step-0000000012-generation-0000000003/manifest.json",
            "digits/0/step-0000000012-generation-0000000003/../manifest.json",
            "digits/0/../step-0000000012-generation-0000000003/manifest.json",
            &format!("/{manifest}"),
            &format!("{manifest}/"),
            &format!("{manifest}\0"),
            &format!("{manifest}#"),
            &format!("{manifest}#a"),
            &format!("file:///{manifest}"),
            &path.to_uppercase(),
            &path.replace("00007-", "7-"),
            &path.replace("0123", "012"),
        ] {
            assert_eq!(Folder::of_file(bad), None, "{bad:?} was accepted");
        }
    }
}
