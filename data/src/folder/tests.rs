use image::ExtendedColorType::{L8, L16, La8, Rgb8, Rgba8};

use super::*;
use crate::fixture::Folder;

#[test]
fn classes_and_files_are_taken_in_the_order_of_their_names() {
    let folder = Folder::new();
    for (name, value) in [("zebra/10.png", 4), ("zebra/9.PNG", 5), ("ant/b.png", 2), ("ant/a.png", 1), ("Bee/x.png", 3)]
    {
        folder.picture(&name.to_lowercase(), 2, 3, L8, value);
        if name != name.to_lowercase() {
            let upper = folder.path().join(name);
            std::fs::create_dir_all(upper.parent().unwrap()).unwrap();
            std::fs::rename(folder.path().join(name.to_lowercase()), upper).unwrap();
        }
    }
    // Left over by the lower-case detour above; a class without images would be refused.
    std::fs::remove_dir(folder.path().join("bee")).unwrap();
    folder.write("README.txt", b"files beside the classes are passed over");
    folder.write(".cache/x", b"and so is what is hidden");
    folder.write("ant/.DS_Store", b"");
    let images = read(folder.path(), 1).unwrap();
    assert_eq!(images.class_names, ["Bee", "ant", "zebra"]);
    assert_eq!(images.labels, [0, 1, 1, 2, 2]);
    assert_eq!(images.shape, ImageShape { height: 3, width: 2, channels: 1 });
    let firsts: Vec<u8> = (0..5).map(|i| images.image(i)[0]).collect();
    assert_eq!(firsts, [3, 1, 2, 4, 5]);
}

#[test]
fn png_and_jpeg_are_decoded_and_grey_becomes_colour() {
    let folder = Folder::new();
    folder.picture("a/1.png", 4, 4, Rgb8, 200);
    folder.picture("a/2.png", 4, 4, L8, 100);
    folder.picture("b/1.jpg", 4, 4, Rgb8, 128);
    folder.picture("b/2.jpeg", 4, 4, L8, 60);
    let images = read(folder.path(), 3).unwrap();
    assert_eq!((images.len(), images.shape.channels), (4, 3));
    for (i, value) in [200u8, 100, 128, 60].into_iter().enumerate() {
        // JPEG may miss a flat value by a little.
        assert!(images.image(i as u64).iter().all(|pixel| pixel.abs_diff(value) <= 2), "image {i}");
    }
}

#[test]
fn what_is_no_clean_class_folder_is_refused_with_the_reason() {
    type Plant = fn(&Folder);
    let cases: [(&str, u32, Plant, &str); 11] = [
        ("nothing", 1, |_| {}, ". holds no class folders"),
        ("an empty class", 1, |f| std::fs::create_dir(f.path().join("b")).unwrap(), "b holds no images"),
        ("a text", 1, |f| drop(f.write("b/note.txt", b"x")), "b/note.txt is not a .png, .jpg or .jpeg file"),
        (
            "a folder in a class",
            1,
            |f| drop(f.picture("b/c/1.png", 2, 2, L8, 0)),
            "b/c is not a .png, .jpg or .jpeg file",
        ),
        (
            "another size",
            1,
            |f| drop(f.picture("b/1.png", 2, 3, L8, 0)),
            "b/1.png is 3x2 with 1 channel, but a/1.png is 2x2 with 1 channel",
        ),
        (
            "colour where grey is wanted",
            1,
            |f| drop(f.picture("b/1.png", 2, 2, Rgb8, 0)),
            "b/1.png holds Rgb8 pixels, but 1 channel(s) of 8 bits",
        ),
        (
            "transparency where colour is wanted",
            3,
            |f| drop(f.picture("b/1.png", 2, 2, Rgba8, 0)),
            "b/1.png holds Rgba8 pixels",
        ),
        ("grey with transparency", 1, |f| drop(f.picture("b/1.png", 2, 2, La8, 0)), "b/1.png holds La8 pixels"),
        ("16 bits", 1, |f| drop(f.picture("b/1.png", 2, 2, L16, 0)), "b/1.png holds L16 pixels"),
        ("no picture at all", 1, |f| drop(f.write("b/1.png", b"not a picture")), "cannot decode b/1.png"),
        (
            "a picture cut off",
            1,
            |f| {
                let path = f.picture("b/1.png", 2, 2, L8, 9);
                let bytes = std::fs::read(&path).unwrap();
                std::fs::write(&path, &bytes[..bytes.len() - 20]).unwrap();
            },
            "cannot decode b/1.png",
        ),
    ];
    for (name, channels, plant, expected) in cases {
        let folder = Folder::new();
        if name != "nothing" {
            folder.picture("a/1.png", 2, 2, L8, 0);
        }
        plant(&folder);
        let shown = folder.shown(&read(folder.path(), channels).unwrap_err());
        assert!(shown.starts_with(expected), "{name}: {shown}");
    }
}

#[cfg(unix)]
#[test]
fn links_are_refused() {
    let (folder, outside) = (Folder::new(), Folder::new());
    let picture = outside.picture("a/1.png", 2, 2, L8, 0);
    folder.picture("a/1.png", 2, 2, L8, 0);
    let link = folder.path().join("a/2.png");
    std::os::unix::fs::symlink(&picture, &link).unwrap();
    assert!(matches!(read(folder.path(), 1), Err(DataError::Link { path }) if path == link));
    std::fs::remove_file(&link).unwrap();
    let link = folder.path().join("b");
    std::os::unix::fs::symlink(outside.path().join("a"), &link).unwrap();
    assert!(matches!(read(folder.path(), 1), Err(DataError::Link { path }) if path == link));
}

#[test]
fn a_picture_that_announces_a_huge_size_is_refused_before_memory_is_asked_for() {
    let folder = Folder::new();
    let path = folder.picture("a/1.png", 2, 2, L8, 0);
    let mut bytes = std::fs::read(&path).unwrap();
    // Width and height of the header chunk; its checksum is the last four bytes of that chunk.
    bytes[16..24].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]);
    let mut crc = flate2::Crc::new();
    crc.update(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&crc.sum().to_be_bytes());
    std::fs::write(&path, &bytes).unwrap();
    assert!(matches!(read(folder.path(), 1), Err(DataError::Decode { .. } | DataError::TooLarge { .. })));
}
