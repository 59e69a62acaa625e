use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use domain::spec::file;

use super::data::Pixels;
use super::*;
use crate::args::{ModelSize, Sides};

fn sides(height: u32, width: u32) -> Sides {
    Sides { height, width }
}

/// What the reader of job files says about `text` in `folder`.
fn read(text: &str, kind: Kind) -> Result<(), String> {
    let load = |_: &Path| Err("there is no other file".to_owned());
    let base = Path::new("/");
    match kind {
        Kind::Job => file::read(text, "job.yaml", base).map(|_| ()),
        Kind::Sweep => file::sweep::read(text, "sweep.yaml", base, load).map(|_| ()),
    }
    .map_err(|problems| format!("{problems}\n{text}"))
}

#[test]
fn every_combination_is_a_job() {
    let idx = |name: &str| Source::Idx { images: name.into(), labels: "la bels: \"x\" #".into() };
    let sources = [Source::Folder("photos".into()), idx("images"), idx("- [ä]: {}, 'x'")];
    let mut checked = 0;
    for source in sources {
        for (channels, image) in
            [(None, sides(8, 8)), (Some(1), sides(28, 28)), (Some(4), sides(224, 160)), (None, sides(1, 7))]
        {
            let test = (image.height == 28).then(|| source.clone());
            let pixels = (image.height < 100).then_some(Pixels { max: 16, mean: 0.3, std: 0.001 });
            let data = Data { source: source.clone(), test, sides: None, channels, classes: None, pixels };
            for size in [ModelSize::Tiny, ModelSize::Small, ModelSize::Base] {
                for epochs in [1, 2, 3, 10, 1 << 20] {
                    for workers in [1, 3, 8, 9, 100, 1024] {
                        for kind in [Kind::Job, Kind::Sweep] {
                            let name = "a-job.1".parse().unwrap();
                            let data = data.clone();
                            let answers = Answers { name, data, classes: 7, sides: image, size, epochs, workers, kind };
                            for folder in ["", "elsewhere"] {
                                let text = yaml(&answers, Path::new(folder)).unwrap();
                                read(&text, kind).unwrap();
                                assert!(text.lines().all(|line| line.len() <= 120), "{text}");
                                checked += 1;
                            }
                        }
                    }
                }
            }
        }
    }
    assert_eq!(checked, 3 * 4 * 3 * 5 * 6 * 2 * 2);
}

#[test]
fn patches_leave_enough_tokens_and_not_too_many() {
    for (image, patch) in [
        (sides(8, 8), Some(2)),
        (sides(28, 28), Some(7)),
        (sides(32, 32), Some(8)),
        (sides(224, 224), Some(16)),
        (sides(224, 160), Some(16)),
        (sides(2, 2), Some(1)),
        (sides(61, 61), Some(1)),
        (sides(223, 223), None),
    ] {
        assert_eq!(patch_for(image), patch, "{image}");
    }
}

/// An IDX file.
fn write_idx(path: &Path, sizes: &[u32], bytes: &[u8], packed: bool) {
    let mut whole = vec![0, 0, 8, sizes.len() as u8];
    sizes.iter().for_each(|size| whole.extend(size.to_be_bytes()));
    whole.extend_from_slice(bytes);
    if packed {
        let mut packer = flate2::write::GzEncoder::new(fs::File::create(path).unwrap(), flate2::Compression::fast());
        packer.write_all(&whole).unwrap();
        packer.finish().unwrap();
    } else {
        fs::write(path, whole).unwrap();
    }
}

#[test]
fn idx_files_are_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    write_idx(&path("train-images-idx3-ubyte.gz"), &[2, 2, 3], &[0, 4, 8, 16, 0, 8, 0, 4, 8, 16, 0, 8], true);
    write_idx(&path("train-labels-idx1-ubyte"), &[2], &[0, 4], false);
    let alone = Data::at(dir.path());
    let images = path("train-images-idx3-ubyte.gz");
    let expected = Source::Idx { images: images.clone(), labels: path("train-labels-idx1-ubyte") };
    assert_eq!((&alone.source, &alone.test), (&expected, &None));
    assert_eq!((alone.sides, alone.channels, alone.classes), (Some(sides(2, 3)), Some(1), Some(5)));
    let pixels = alone.pixels.unwrap();
    assert_eq!((pixels.max, pixels.mean), (16, 0.375));
    assert!((pixels.std - 0.3461).abs() < 1e-3, "{pixels:?}");

    write_idx(&path("t10k-images-idx3-ubyte.gz"), &[1, 2, 3], &[0; 6], true);
    write_idx(&path("t10k-labels-idx1-ubyte.gz"), &[1], &[0], true);
    let test = Source::Idx { images: path("t10k-images-idx3-ubyte.gz"), labels: path("t10k-labels-idx1-ubyte.gz") };
    assert_eq!(Data::at(&images).test, Some(test));
}

#[test]
fn folders_of_pictures_are_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    for class in ["cats", "dogs", ".hidden"] {
        fs::create_dir(dir.path().join(class)).unwrap();
    }
    fs::write(dir.path().join("cats/a.txt"), "no picture").unwrap();
    image::GrayImage::new(20, 10).save(dir.path().join("dogs/a.png")).unwrap();
    let found = Data::at(dir.path());
    assert_eq!(found.source, Source::Folder(dir.path().to_owned()));
    assert_eq!((found.sides, found.channels, found.classes), (Some(sides(10, 20)), Some(1), Some(2)));
}

#[test]
fn what_is_not_here_or_no_data_is_left_open() {
    let dir = tempfile::tempdir().unwrap();
    let damaged = dir.path().join("damaged");
    for bytes in [&b""[..], b"\x1f\x8b\x08\x00", &[0, 0, 8, 3, 0, 0], &[0, 0, 8, 200], &[0xff; 64]] {
        fs::write(&damaged, bytes).unwrap();
        let found = Data::at(&damaged);
        assert_eq!((found.sides, found.classes, found.pixels), (None, None, None), "{bytes:?}");
    }
    for (path, is_folder) in [("nowhere", true), ("nowhere-idx3-ubyte", false)] {
        let found = Data::at(&PathBuf::from(path));
        assert_eq!((matches!(found.source, Source::Folder(_)), found.sides), (is_folder, None));
    }
}
