use super::*;
use crate::fixture::{Folder, gzip, idx};

#[test]
fn plain_and_compressed_files_are_read_alike() {
    let pixels: Vec<u8> = (0..24).collect();
    let labels = [3, 0, 1, 255];
    for (dimensions, shape) in [
        (vec![4, 3, 2], ImageShape { height: 3, width: 2, channels: 1 }),
        (vec![4, 1, 2, 3], ImageShape { height: 1, width: 2, channels: 3 }),
    ] {
        for pack in [<[u8]>::to_vec, gzip] {
            let folder = Folder::new();
            let images_path = folder.write("images", &pack(&idx(&dimensions, &pixels)));
            let labels_path = folder.write("labels", &pack(&idx(&[4], &labels)));
            let images = read(&images_path, &labels_path).unwrap();
            assert_eq!((images.shape, images.len(), images.classes()), (shape, 4, 256));
            assert_eq!((&*images.pixels, images.labels), (&*pixels, vec![3, 0, 1, 255]));
        }
    }
    // A gzip file may consist of several members.
    let folder = Folder::new();
    let whole = idx(&[2, 1, 2], &[1, 2, 3, 4]);
    let images_path = folder.write("images", &[gzip(&whole[..7]), gzip(&whole[7..])].concat());
    let labels_path = folder.write("labels", &idx(&[2], &[0, 1]));
    assert_eq!(*read(&images_path, &labels_path).unwrap().pixels, [1, 2, 3, 4]);
}

#[test]
fn damaged_files_are_refused_with_the_reason() {
    let good_images = idx(&[2, 2, 2], &[7; 8]);
    let good_labels = idx(&[2], &[0, 1]);
    let with = |at: usize, byte: u8| {
        let mut bytes = good_images.clone();
        bytes[at] = byte;
        bytes
    };
    let mut wrong_checksum = gzip(&good_images);
    let crc = wrong_checksum.len() - 8;
    wrong_checksum[crc] ^= 1;
    let cut_gzip = {
        let packed = gzip(&good_images);
        packed[..packed.len() - 12].to_vec()
    };
    let cut_checksum = gzip(&good_images);
    let cut_checksum = cut_checksum[..cut_checksum.len() - 3].to_vec();
    let (i, l) = (&good_images, &good_labels);
    for (name, images, labels, expected) in [
        ("empty", vec![], l.clone(), "images is truncated: its header promises 4 bytes, found 0"),
        ("cut in the magic", i[..3].to_vec(), l.clone(), "images is truncated: its header promises 4 bytes, found 3"),
        ("cut in the sizes", i[..9].to_vec(), l.clone(), "images is truncated: its header promises 16 bytes, found 9"),
        (
            "cut in the pixels",
            i[..23].to_vec(),
            l.clone(),
            "images is truncated: its header promises 24 bytes, found 23",
        ),
        ("cut while packed", cut_gzip, l.clone(), "images is truncated"),
        ("cut in the labels", i.clone(), l[..9].to_vec(), "labels is truncated: its header promises 10 bytes, found 9"),
        (
            "goes on",
            [i.as_slice(), &[0]].concat(),
            l.clone(),
            "images goes on after the 24 bytes that its header promises",
        ),
        ("goes on while packed", gzip(&[i.as_slice(), &[0]].concat()), l.clone(), "images goes on after the 24 bytes"),
        ("labels go on", i.clone(), [l.as_slice(), &[0]].concat(), "labels goes on after the 10 bytes"),
        ("cut in the checksum", cut_checksum, l.clone(), "cannot read images"),
        ("wrong checksum", wrong_checksum, l.clone(), "cannot read images"),
        ("rubbish after gzip", [gzip(i), b"rubbish".to_vec()].concat(), l.clone(), "cannot read images"),
        (
            "a text",
            b"hello".to_vec(),
            l.clone(),
            "images is not an IDX file: it begins with [68, 65, 6c, 6c], must be [00, 00, type, rank]",
        ),
        (
            "floats",
            with(2, 0x0d),
            l.clone(),
            "images holds IDX elements of type 0x0d, only unsigned bytes (0x08) are read",
        ),
        ("no dimensions", with(3, 0), l.clone(), "images has 0 dimensions, 1 to 4 are read"),
        ("5 dimensions", with(3, 5), l.clone(), "images has 5 dimensions, 1 to 4 are read"),
        ("labels as images", l.clone(), l.clone(), "images has 1 dimensions, images need 3 (or 4 with channels)"),
        ("images as labels", i.clone(), i.clone(), "labels has 3 dimensions, labels need 1"),
        ("fewer labels", i.clone(), idx(&[1], &[0]), "images holds 2 images, but labels holds 1 labels"),
        ("no images", idx(&[0, 2, 2], &[]), idx(&[0], &[]), "images holds no images"),
        ("no pixels", idx(&[2, 0, 2], &[]), l.clone(), "images holds no images"),
        (
            "hostile count",
            idx(&[u32::MAX, 2, 2], &[]),
            idx(&[u32::MAX], &[]),
            "images announces 17179869180 bytes of pixels, at most 4294967296 are read",
        ),
        (
            "hostile side",
            idx(&[1, u32::MAX, u32::MAX], &[]),
            l.clone(),
            "images announces 4294967295 pixels along a side, at most 16384 are read",
        ),
        ("hostile channels", idx(&[1, 1, 1, 5], &[]), l.clone(), "images announces 5 channels, at most 4 are read"),
        (
            "hostile labels",
            idx(&[1 << 30, 2, 2], &[]),
            idx(&[1 << 30], &[1; 50]),
            "labels is truncated: its header promises 1073741832 bytes, found 58",
        ),
    ] {
        let folder = Folder::new();
        let error = read(&folder.write("images", &images), &folder.write("labels", &labels)).unwrap_err();
        let shown = folder.shown(&error);
        assert!(shown.starts_with(expected), "{name}: {shown}");
    }
}

#[test]
fn only_plain_files_are_opened() {
    let folder = Folder::new();
    let labels = folder.write("labels", &idx(&[1], &[0]));
    let missing = read(&folder.path().join("nothing"), &labels).unwrap_err();
    assert_eq!(folder.shown(&missing), "cannot read nothing");
    let a_folder = read(folder.path(), &labels).unwrap_err();
    assert!(matches!(a_folder, DataError::NotAFile { .. }), "{a_folder}");
}
