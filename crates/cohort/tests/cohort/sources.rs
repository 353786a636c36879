//! Sources that are no delimited text: objects in lines, Parquet, arrays of numpy, folders of images; well made and not.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{Date32Builder, Float64Builder, ListBuilder};
use arrow_array::{ArrayRef, BooleanArray, Float32Array, Int64Array, RecordBatch, StringArray};
use hospes_cohort::CohortError;
use hospes_cohort::opt_out::SubjectKey;
use hospes_cohort::profile::{Profile, profile};
use hospes_cohort::scan::ScanProfile;
use hospes_cohort::schema::{ColumnKind, ImageSize};
use hospes_cohort::snapshot::{Freeze, Snapshot, SnapshotKey, freeze};
use hospes_cohort::source::{Hints, Limits, SourceKind, Survey, survey};
use hospes_protocol::id::Timestamp;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use proptest::prelude::*;

use crate::rig::write;

fn look(path: &Path) -> Result<Survey, CohortError> {
    survey(path, &Hints::default(), ScanProfile::Default, Limits::default())
}

fn key() -> SnapshotKey {
    SnapshotKey::from_bytes([5; 32])
}

/// Surveys and freezes a source as the engine does.
pub(crate) fn register(path: &Path, subject: &str) -> Result<(Snapshot, Profile, tempfile::TempDir), CohortError> {
    let folder = tempfile::tempdir().unwrap();
    let hints = Hints { subject: Some(subject.to_owned()), ..Hints::default() };
    let found = survey(path, &hints, ScanProfile::Default, Limits::default())?;
    let order = Freeze {
        source: path.into(),
        format: &found.format,
        schema: &found.schema(subject)?,
        folder: folder.path(),
        public: true,
        at: Timestamp::from_millis(1_750_000_000_000),
        limits: Limits::default(),
    };
    let snapshot = freeze(order, &key(), &SubjectKey::from_bytes([6; 32]))?;
    let profile = profile(&snapshot, &key(), 10.0)?;
    Ok((snapshot, profile, folder))
}

pub(crate) fn message<T>(result: Result<T, CohortError>) -> String {
    result.err().expect("should be refused").to_string()
}

pub(crate) fn kinds(found: &Survey) -> Vec<(&str, ColumnKind)> {
    found.columns.iter().map(|c| (c.name.as_str(), c.kind)).collect()
}

// Objects in lines.

fn json(text: impl AsRef<[u8]>) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "data.ndjson", text);
    (folder, path)
}

#[test]
fn objects_in_lines_are_typed_like_any_table() {
    let lines = "\u{feff}{\"id\":\"P-1\",\"age\":50,\"sick\":true,\"kind\":\"a\"}\n\n\
                 {\"id\":\"P-2\",\"age\":61.5,\"sick\":false,\"kind\":\"a\",\"late\":1e-7}\r\n\
                 {\"kind\":\"b\",\"age\":null,\"id\":\"P-3\"}";
    let (_folder, path) = json(lines);
    let found = look(&path).unwrap();
    assert_eq!((found.rows, found.format.kind, found.subject_guess.as_deref()), (3, SourceKind::NdJson, Some("id")));
    let number = ColumnKind::Number;
    assert_eq!(
        kinds(&found),
        [("id", ColumnKind::Text), ("age", number), ("sick", number), ("kind", ColumnKind::Text), ("late", number)]
    );
    let (snapshot, profile, _kept) = register(&path, "id").unwrap();
    assert_eq!((snapshot.document.rows, snapshot.document.subjects), (3, 3));
    let age = &profile.columns[0];
    assert_eq!((age.present, age.missing, age.number.as_ref().map(|n| n.mean)), (2, 1, Some(55.75)));
    // The digest is that of the file's bytes.
    assert_eq!(snapshot.document.source, hospes_protocol::id::Digest::of(lines.as_bytes()));
}

#[test]
fn objects_that_are_none_are_named_by_line_column_and_rule_and_never_quoted() {
    let refuse = |text: &str| {
        let (_folder, path) = json(text);
        message(look(&path))
    };
    let no_object = "it is no JSON object with a name for each value";
    assert_eq!(refuse("{\"id\":1}\n[\"CANARY\"]\n"), format!("data.ndjson, line 2: {no_object}"));
    assert_eq!(refuse("{\"id\":1}\n{\"id\":\"CANARY}\n"), format!("data.ndjson, line 2: {no_object}"));
    assert_eq!(refuse("{\"id\":1} {\"id\":\"CANARY\"}\n"), format!("data.ndjson, line 1: {no_object}"));
    assert_eq!(
        refuse("{\"id\":1,\"name\":[{\"family\":\"CANARY\"}]}"),
        "data.ndjson, line 1, column 'name': a list or an object; only flat objects can be registered"
    );
    assert_eq!(
        refuse("{\"id\":1}\n{\"id\":2,\"id\":\"CANARY\"}"),
        "data.ndjson, line 2, column 'id': the name stands there twice"
    );
    assert_eq!(refuse("{\"id\":\"a\\u0000b\"}"), "data.ndjson, line 1: a NUL character; this is no text file");
    assert_eq!(refuse("{\"\":1}"), "data.ndjson: column 1 has no name");
    let long = format!("{{\"a\":1,\"{}\":1}}", "x".repeat(129));
    assert_eq!(refuse(&long), "data.ndjson: the name of column 2 has more than 128 characters");
    assert_eq!(refuse("\n \n"), "data.ndjson: no rows");
    let deep = format!("{{\"id\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(
        refuse(&deep),
        "data.ndjson, line 1, column 'id': a list or an object; only flat objects can be registered"
    );
    let wide: String = (0..10_001).map(|i| format!("{{\"c{i}\":1}}\n")).collect();
    assert_eq!(refuse(&wide), "data.ndjson: more than 10000 columns");
    let (_folder, latin) = json(b"{\"id\":\"Gr\xF6\xDFe\"}\n");
    assert!(message(look(&latin)).contains("not valid UTF-8"));
    let (_folder, long) = json(vec![b'x'; 5 << 20]);
    assert!(message(look(&long)).contains("the record has more than 4,194,304 bytes"));
}

proptest! {
    #[test]
    fn any_lines_are_a_table_or_an_error(text in "[\\PC\n]{0,200}", bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for (_folder, path) in [json(text), json(bytes)] {
            let _ = look(&path);
        }
    }

    #[test]
    fn numbers_keep_their_values(values in prop::collection::vec(-1e12f64..1e12, 1..20)) {
        let lines: String = values.iter().map(|v| format!("{}\n", serde_json::json!({ "id": "a", "x": v }))).collect();
        let (_folder, path) = json(lines);
        let x = look(&path).unwrap().columns[1].number.unwrap();
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        // The parser of JSON may be off by the last bit.
        prop_assert!((x.min - least).abs() <= least.abs() * 2.0 * f64::EPSILON, "{} {}", x.min, least);
    }
}

// Parquet.

fn parquet(columns: Vec<(&str, ArrayRef)>, compression: Compression) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.parquet");
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true))).unwrap();
    let properties = WriterProperties::builder().set_compression(compression).build();
    let file = std::fs::File::create(&path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    (folder, path)
}

fn some_columns() -> Vec<(&'static str, ArrayRef)> {
    let mut days = Date32Builder::new();
    (0..4).for_each(|day| days.append_value(19_000 + day));
    vec![
        ("id", Arc::new(StringArray::from(vec!["a", "b", "c", "a"]))),
        ("age", Arc::new(Int64Array::from(vec![Some(50), None, Some(-9), Some(70)]))),
        ("dose", Arc::new(Float32Array::from(vec![Some(0.1), Some(f32::NAN), Some(1e-8), None]))),
        ("sick", Arc::new(BooleanArray::from(vec![true, false, true, false]))),
        ("seen", Arc::new(days.finish())),
    ]
}

#[test]
fn parquet_is_read_with_its_types() {
    for compression in [Compression::UNCOMPRESSED, Compression::SNAPPY] {
        let (_folder, path) = parquet(some_columns(), compression);
        let found = look(&path).unwrap();
        assert_eq!((found.rows, found.format.kind), (4, SourceKind::Parquet));
        assert_eq!(found.columns.iter().map(|c| c.present).collect::<Vec<_>>(), [4, 3, 2, 4, 4]);
        // −9 is a value where a missing one is written as such; 0.1 is not 0.10000000149.
        assert_eq!(found.columns[1].number.map(|n| n.min), Some(-9.0));
        assert_eq!(found.columns[2].number.map(|n| (n.min, n.max)), Some((1e-8, 0.1)));
        assert_eq!((found.columns[4].kind, found.columns[4].has_days), (ColumnKind::Date, true));
        let (snapshot, _, _kept) = register(&path, "id").unwrap();
        assert_eq!((snapshot.document.rows, snapshot.document.subjects), (4, 3));
        assert_eq!(snapshot.document.source, hospes_protocol::id::Digest::of(&std::fs::read(&path).unwrap()));
        assert_eq!(snapshot.document.masked, ["seen"]);
    }
}

#[test]
fn parquet_with_nested_columns_or_damage_is_refused() {
    let mut list = ListBuilder::new(Float64Builder::new());
    list.append_value([Some(1.0)]);
    let (_folder, path) = parquet(vec![("a", Arc::new(list.finish()))], Compression::UNCOMPRESSED);
    assert!(message(look(&path)).starts_with("data.parquet, column 1: only numbers, text, dates"));
    let (_folder, path) = parquet(some_columns(), Compression::SNAPPY);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 9]).unwrap();
    let footer = "data.parquet, footer: it is damaged, encrypted, or no Parquet file";
    assert_eq!(message(look(&path)), footer);
    std::fs::write(&path, b"id,x\n1,2\n").unwrap();
    assert_eq!(message(look(&path)), footer);
}

// Arrays of numpy.

/// An array as numpy writes it.
fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let length = u16::try_from(header.len()).unwrap().to_le_bytes();
    [b"\x93NUMPY\x01\x00".as_slice(), &length, header.as_bytes(), data].concat()
}

/// An archive as numpy and spreadsheet programs write it, deflated or stored.
pub(crate) fn npz(entries: &[(&str, Vec<u8>)], deflated: bool) -> Vec<u8> {
    let (mut file, mut list) = (Vec::new(), Vec::new());
    for (name, bytes) in entries {
        let mut crc = flate2::Crc::new();
        crc.update(bytes);
        let mut packed = bytes.clone();
        if deflated {
            let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(bytes).unwrap();
            packed = encoder.finish().unwrap();
        }
        let four = |n: usize| u32::try_from(n).unwrap().to_le_bytes().to_vec();
        let head_at = four(file.len());
        let common = [
            [0, 0, if deflated { 8 } else { 0 }, 0, 0, 0, 0, 0].to_vec(),
            crc.sum().to_le_bytes().to_vec(),
            four(packed.len()),
            four(bytes.len()),
            u16::try_from(name.len()).unwrap().to_le_bytes().to_vec(),
            vec![0, 0],
        ]
        .concat();
        file.extend([b"PK\x03\x04\x14\x00".as_slice(), &common, name.as_bytes(), &packed].concat());
        list.extend([b"PK\x01\x02\x14\x00\x14\x00".as_slice(), &common, &[0; 10], &head_at, name.as_bytes()].concat());
    }
    let count = u16::try_from(entries.len()).unwrap().to_le_bytes();
    let (size, start) = (u32::try_from(list.len()).unwrap(), u32::try_from(file.len()).unwrap());
    file.extend(list);
    let end = [b"PK\x05\x06\0\0\0\0".as_slice(), &count, &count, &size.to_le_bytes(), &start.to_le_bytes(), &[0, 0]];
    file.extend(end.concat());
    file
}

fn archive(bytes: impl AsRef<[u8]>) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "scans.npz", bytes);
    (folder, path)
}

/// As MedMNIST has them: three images for training, one for each of the others.
fn medmnist() -> Vec<(&'static str, Vec<u8>)> {
    let pixels = |n: u8| (0..n * 6).collect::<Vec<u8>>();
    vec![
        ("train_images.npy", npy("|u1", "(3, 2, 3)", &pixels(3))),
        ("val_images.npy", npy("|u1", "(1, 2, 3)", &pixels(1))),
        ("test_images.npy", npy("|u1", "(1, 2, 3)", &pixels(1))),
        ("train_labels.npy", npy("|u1", "(3, 1)", &[0, 1, 1])),
        ("val_labels.npy", npy("|u1", "(1, 1)", &[0])),
        ("test_labels.npy", npy("|u1", "(1, 1)", &[1])),
    ]
}

#[test]
fn arrays_in_three_parts_become_images_labels_and_a_fold() {
    for deflated in [false, true] {
        let (_folder, path) = archive(npz(&medmnist(), deflated));
        let found = look(&path).unwrap();
        let size = ImageSize::new(1, 2, 3).unwrap();
        assert_eq!((found.rows, found.format.kind), (5, SourceKind::Npz));
        assert_eq!(
            kinds(&found)[1..],
            [("image", ColumnKind::Image(size)), ("label", ColumnKind::Number), ("fold", ColumnKind::Text)]
        );
        assert_eq!(
            (found.columns[0].name.as_str(), found.subject_guess.as_deref()),
            ("subject_id", Some("subject_id"))
        );
        let (snapshot, profile, _kept) = register(&path, "subject_id").unwrap();
        assert_eq!((snapshot.document.rows, snapshot.document.subjects), (5, 5));
        assert_eq!((profile.columns[0].kind, profile.columns[0].present), (ColumnKind::Image(size), 5));
        assert_eq!(serde_json::to_value(&profile).unwrap()["columns"][0]["kind"], "image 1x2x3");
    }
}

#[test]
fn arrays_with_colours_and_patients_of_their_own_are_read() {
    let arrays = [
        ("images.npy", npy("|u1", "(2, 1, 2, 3)", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])),
        ("patient_id.npy", npy("<U2", "(2,)", b"P\0\0\x001\0\0\0P\0\0\x002\0\0\0")),
        ("labels.npy", npy("<i8", "(2, 2)", &[[1, 0, 0, 0, 0, 0, 0, 0], [0; 8], [0; 8], [255; 8]].concat())),
    ];
    let (_folder, path) = archive(npz(&arrays, true));
    let found = look(&path).unwrap();
    let size = ImageSize::new(3, 1, 2).unwrap();
    let number = ColumnKind::Number;
    assert_eq!(
        kinds(&found),
        [
            ("image", ColumnKind::Image(size)),
            ("label_0", number),
            ("label_1", number),
            ("patient_id", ColumnKind::Text)
        ]
    );
    assert_eq!(found.columns[2].number.map(|n| (n.min, n.max)), Some((-1.0, 0.0)));
    assert_eq!(register(&path, "patient_id").unwrap().0.document.subjects, 2);
}

#[test]
fn archives_that_are_made_to_harm_are_refused() {
    let refuse = |bytes: Vec<u8>| {
        let (_folder, path) = archive(bytes);
        message(look(&path))
    };
    let with = |at: usize, entry: (&'static str, Vec<u8>)| {
        let mut list = medmnist();
        list[at] = entry;
        npz(&list, true)
    };
    let good = npz(&medmnist(), true);
    assert_eq!(
        refuse(good[..good.len() - 1].to_vec()),
        "scans.npz, archive: it has no list of entries; it is cut off or no archive"
    );
    assert_eq!(
        refuse(with(5, ("../../etc/passwd.npy", npy("|u1", "(1, 1)", &[1])))),
        "scans.npz, an entry: its name is not that of an array: letters, digits and '_', then '.npy'"
    );
    assert_eq!(
        refuse(with(5, ("test_labels.npy", npy("|O", "(1, 1)", b"cos\nsystem")))),
        "scans.npz, array 'test_labels': its elements are neither numbers nor text of fixed length"
    );
    assert_eq!(
        refuse(with(2, ("test_images.npy", npy("|u1", "(1, 3, 2)", &[0; 6])))),
        "scans.npz, array 'test_images': its images are not of the size 1x2x3 of the first"
    );
    assert_eq!(
        refuse(with(5, ("test_labels.npy", npy("|u1", "(2, 1)", &[1, 1])))),
        "scans.npz, array 'test_labels': it has not as many rows as there are images"
    );
    // A header that promises more than there is, and one of terabytes.
    for shape in ["(3, 2, 300)", "(999999, 4096, 4096)", "(18446744073709551615, 4096, 4096)"] {
        let text = refuse(with(0, ("train_images.npy", npy("|u1", shape, &[0; 18]))));
        assert!(text.starts_with("scans.npz, array 'train_images': it"), "{text}");
    }
    // A bomb: the list says 18 bytes and a header, the stream has a gibibyte of zeros.
    let mut entries = medmnist();
    let mut bomb = npz(&entries, true);
    entries[0].1.extend(vec![0; 64 << 20]);
    let large = npz(&entries, true);
    let (small, whole) = (u32::try_from(medmnist()[0].1.len()).unwrap(), u32::try_from(entries[0].1.len()).unwrap());
    bomb.clone_from(&large);
    for at in 0..bomb.len() - 4 {
        if bomb[at..at + 4] == whole.to_le_bytes() {
            bomb[at..at + 4].copy_from_slice(&small.to_le_bytes());
        }
    }
    assert_eq!(refuse(bomb), "scans.npz, array 'train_images': it is longer than it says");
    // One byte altered in a stored array: its checksum tells.
    let mut altered = npz(&medmnist(), false);
    let at = altered.windows(6).position(|w| w == [0, 1, 2, 3, 4, 5]).unwrap();
    altered[at] ^= 1;
    assert_eq!(refuse(altered), "scans.npz, array 'train_images': its checksum differs");
    // Two entries that share bytes.
    let mut shared = npz(&medmnist(), true);
    let second = shared.windows(4).enumerate().filter(|(_, w)| *w == b"PK\x01\x02").nth(1).unwrap().0;
    shared[second + 42..second + 46].copy_from_slice(&[0; 4]);
    assert_eq!(refuse(shared), "scans.npz, archive: two entries share bytes");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn an_archive_altered_anywhere_is_read_or_refused(
        deflated in any::<bool>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = npz(&medmnist(), deflated);
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        for part in [&bytes[..], &bytes[..cut.index(bytes.len())]] {
            let (_folder, path) = archive(part);
            let _ = look(&path);
        }
    }

    #[test]
    fn any_bytes_are_no_archive(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let (_folder, path) = archive(bytes);
        prop_assert!(look(&path).is_err());
    }
}

// Folders of images.

fn png(folder: &Path, name: &str, image: impl Into<image::DynamicImage>) {
    image.into().save_with_format(folder.join(name), image::ImageFormat::Png).unwrap();
}

fn images(table: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "labels.csv", table);
    std::fs::create_dir(folder.path().join("scans")).unwrap();
    png(folder.path(), "scans/a.png", image::RgbImage::from_raw(3, 2, (1..=18).collect()).unwrap());
    png(folder.path(), "scans/b.png", image::RgbaImage::from_pixel(3, 2, image::Rgba([9, 8, 7, 0])));
    let jpeg = image::DynamicImage::from(image::RgbImage::from_pixel(3, 2, image::Rgb([100, 100, 100])));
    jpeg.save_with_format(folder.path().join("c.jpg"), image::ImageFormat::Jpeg).unwrap();
    folder
}

#[test]
fn a_folder_of_images_with_a_table_is_registered() {
    let folder = images("image;patient_id;label\nscans/a.png;P-1;0\nscans/b.png;P-1;1\n./c.jpg;P-2;?\n");
    let found = look(folder.path()).unwrap();
    let size = ImageSize::new(3, 2, 3).unwrap();
    assert_eq!((found.rows, found.format.kind), (3, SourceKind::ImageFolder));
    assert_eq!(kinds(&found)[0], ("image", ColumnKind::Image(size)));
    let (snapshot, profile, _kept) = register(folder.path(), "patient_id").unwrap();
    assert_eq!((snapshot.document.rows, snapshot.document.subjects), (3, 2));
    assert_eq!((profile.columns[0].kind, profile.columns[0].present), (ColumnKind::Image(size), 3));
    assert_eq!(profile.columns[1].missing, 1);
    // Another pixel is another source.
    png(folder.path(), "scans/b.png", image::RgbaImage::from_pixel(3, 2, image::Rgba([9, 8, 6, 0])));
    assert_ne!(register(folder.path(), "patient_id").unwrap().0.document.source, snapshot.document.source);
}

#[test]
fn folders_that_do_not_hold_what_they_say_or_lead_out_are_refused() {
    let refuse = |rows: &str| message(look(images(&format!("image,patient_id\nscans/a.png,P-1\n{rows}\n")).path()));
    let place = "labels.csv, line 3, column of the image";
    for outside in ["../a.png", "/etc/hostname", "scans/../../a.png", "C:\\a.png"] {
        let text = refuse(&format!("{outside},P-2"));
        assert!(text.starts_with(&format!("{place}: a file name must be a path within the folder")), "{text}");
        assert!(!text.contains(outside), "{text}");
    }
    assert_eq!(refuse("scans/z.png,P-2"), format!("{place}: the file that it names is not there"));
    assert_eq!(refuse(",P-2"), format!("{place}: no file is named"));
    assert_eq!(refuse("labels.csv,P-2"), format!("{place}: the file that it names is no PNG or JPEG image"));
    assert_eq!(refuse("a.png,P-2,x"), "labels.csv, line 3: 3 fields, the header has 2");

    let folder = images("image,patient_id\nscans/a.png,P-1\nlarge.png,P-2\n");
    png(folder.path(), "large.png", image::RgbImage::new(4, 2));
    assert_eq!(
        message(look(folder.path())),
        "labels.csv, line 3, image 'large.png': it is 3x2x4 (channels × height × width), the first one is 3x2x3"
    );
    png(folder.path(), "large.png", image::GrayImage::new(5_000, 1));
    assert!(message(look(folder.path())).contains("larger than 4096 pixels a side"));
    let good = std::fs::read(folder.path().join("scans/a.png")).unwrap();
    write(folder.path(), "large.png", &good[..good.len() / 2]);
    assert!(message(look(folder.path())).starts_with(&format!("{place}: the image cannot be decoded")));

    std::fs::remove_file(folder.path().join("labels.csv")).unwrap();
    assert!(message(look(folder.path())).contains("there is no .csv file; one is needed"));
    let folder = images("scan,patient_id\nscans/a.png,P-1\n");
    assert!(message(look(folder.path())).starts_with("labels.csv, header: no column is called image, file,"));
}

#[cfg(unix)]
#[test]
fn an_image_behind_a_link_is_refused() {
    let folder = images("image,patient_id\nscans/a.png,P-1\nlink.png,P-2\nlinks/a.png,P-3\n");
    let other = images("image,patient_id\n");
    std::os::unix::fs::symlink(other.path().join("scans/a.png"), folder.path().join("link.png")).unwrap();
    std::os::unix::fs::symlink(other.path().join("scans"), folder.path().join("links")).unwrap();
    let linked =
        |line: u8| format!("labels.csv, line {line}, column of the image: the file that it names is behind a link");
    assert_eq!(message(look(folder.path())), linked(3));
    write(folder.path(), "labels.csv", "image,patient_id\nscans/a.png,P-1\nlinks/a.png,P-3\n");
    assert_eq!(message(look(folder.path())), linked(3));
    std::fs::remove_file(folder.path().join("labels.csv")).unwrap();
    std::os::unix::fs::symlink(other.path().join("labels.csv"), folder.path().join("labels.csv")).unwrap();
    assert!(message(look(folder.path())).contains("there is no .csv file"));
}

#[test]
fn an_image_is_registered_as_one_and_nothing_else_is() {
    let (_folder, path) = archive(npz(&medmnist(), true));
    let found = look(&path).unwrap();
    let mut schema = found.schema("subject_id").unwrap();
    let kept = tempfile::tempdir().unwrap();
    let mut attempt = |column: &str, kind: &str| {
        schema = found.schema("subject_id").unwrap();
        schema.set_kind(column, kind.parse().unwrap()).unwrap();
        let order = Freeze {
            source: (&path).into(),
            format: &found.format,
            schema: &schema,
            folder: kept.path(),
            public: true,
            at: Timestamp::from_millis(0),
            limits: Limits::default(),
        };
        message(freeze(order, &key(), &SubjectKey::from_bytes([6; 32])))
    };
    let words = "cannot read the column type: column";
    assert_eq!(
        attempt("image", "text"),
        format!("{words} 'image' is an image in the source, and cannot be anything else")
    );
    assert_eq!(
        attempt("label", "image 1x2x3"),
        format!("{words} 'label' is no image in the source, and cannot be anything else")
    );
    assert!("image 0x2x3".parse::<ColumnKind>().is_err() && "image 1x9999x9999".parse::<ColumnKind>().is_err());
}
