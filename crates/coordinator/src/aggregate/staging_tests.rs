use std::sync::atomic::{AtomicU64, Ordering};

use hospes_protocol::id::JobId;
use hospes_protocol::plan::{Figure, Quantise};
use hospes_protocol::policy::EgressKind;

use super::*;
use crate::system_clock;

struct Bench {
    folder: tempfile::TempDir,
    free: Arc<AtomicU64>,
    round: RoundKey,
    study: StudyId,
    site: SiteId,
}

impl Bench {
    fn new() -> Self {
        let at = Timestamp::from_millis(1_700_000_000_000);
        Self {
            folder: tempfile::tempdir().unwrap(),
            free: Arc::new(AtomicU64::new(1 << 40)),
            round: RoundKey { job: JobId::new(at, [1; 10]), task: "train".into(), epoch: 1, round: 1, attempt: 1 },
            study: StudyId::new(at, [2; 10]),
            site: SiteId::from_bytes([3; 16]),
        }
    }

    /// Staging as a process has it when it starts.
    fn staging(&self) -> Staging {
        let free = self.free.clone();
        let free: FreeSpace = Arc::new(move |_| Ok(free.load(Ordering::SeqCst)));
        Staging::new(self.folder.path().join("uploads"), free, system_clock()).unwrap()
    }

    fn wanted(&self, content: Content) -> Wanted {
        Wanted { round: self.round.clone(), study: self.study, members: [self.site].into(), content }
    }

    fn update(&self) -> Content {
        Content::Update { parameters: 1_000, quantise: Quantise { clip: 1.0, bits: 32, n_max: 10 } }
    }

    fn request(&self, payload: &[u8]) -> UploadRequest {
        UploadRequest {
            site: self.site,
            kind: UploadKind::Update,
            study: self.study,
            round: self.round.clone(),
            digest: Digest::of(payload),
            length: payload.len() as u64,
        }
    }

    fn files(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.folder.path().join("uploads"))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// An update of full weight.
fn payload(fill: u8) -> Vec<u8> {
    let mut bytes = 10u64.to_le_bytes().to_vec();
    bytes.extend((0..=255u8).cycle().take(4_000).map(|i| i.wrapping_mul(fill)));
    bytes
}

async fn send(incoming: &mut Incoming, payload: &[u8], until: usize) -> Result<(), Refused> {
    let from = usize::try_from(incoming.offset()).unwrap();
    for chunk in payload[from..until].chunks(700) {
        let offset = incoming.offset();
        incoming.append(offset, Bytes::copy_from_slice(chunk), *blake3::hash(chunk).as_bytes()).await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_upload_cut_off_is_resumed_by_another_process_and_is_durable_at_its_end() {
    let (bench, payload) = (Bench::new(), payload(3));
    let request = bench.request(&payload);
    let first = bench.staging();
    assert!(first.open(bench.wanted(bench.update())).unwrap().is_empty());
    let mut incoming = first.begin(request.clone()).await.unwrap();
    send(&mut incoming, &payload, 1_400).await.unwrap();
    drop((incoming, first));
    let second = bench.staging();
    second.open(bench.wanted(bench.update())).unwrap();
    assert_eq!(second.status(&request).await.unwrap(), Standing::Offset(1_400));
    let mut incoming = second.begin(request.clone()).await.unwrap();
    send(&mut incoming, &payload, payload.len()).await.unwrap();
    let staged = incoming.finish().await.unwrap();
    assert_eq!(fs::read(staged.path()).unwrap(), payload);
    assert_eq!(second.status(&request).await.unwrap(), Standing::Complete);
    // Again: nothing to send, the same answer.
    let again = second.begin(request.clone()).await.unwrap();
    assert_eq!(again.offset(), payload.len() as u64);
    assert_eq!(again.finish().await.unwrap(), staged);
    // And after another start it is found as complete.
    let third = bench.staging();
    let found = third.open(bench.wanted(bench.update())).unwrap();
    assert_eq!(found, std::slice::from_ref(&staged));
    third.close(&bench.round);
    assert!(matches!(third.status(&request).await, Err(Refused::Over(_))));
    assert_eq!(third.open(bench.wanted(bench.update())).unwrap(), std::slice::from_ref(&staged));
    assert_eq!(third.path(&bench.round, bench.site, request.digest), staged.path());
}

#[tokio::test]
async fn a_complete_payload_that_a_start_finds_altered_is_deleted_and_comes_again() {
    let (bench, payload) = (Bench::new(), payload(3));
    let request = bench.request(&payload);
    let staging = bench.staging();
    staging.open(bench.wanted(bench.update())).unwrap();
    let mut incoming = staging.begin(request.clone()).await.unwrap();
    send(&mut incoming, &payload, payload.len()).await.unwrap();
    let staged = incoming.finish().await.unwrap();
    assert!(staging.recheck(&staged).await.unwrap());
    let mut altered = payload.clone();
    altered[100] ^= 1;
    fs::write(staged.path(), altered).unwrap();
    let staging = bench.staging();
    let found = staging.open(bench.wanted(bench.update())).unwrap();
    assert!(!staging.recheck(&found[0]).await.unwrap());
    assert!(bench.files().is_empty());
    assert_eq!(staging.status(&request).await.unwrap(), Standing::Offset(0));
    let mut incoming = staging.begin(request).await.unwrap();
    send(&mut incoming, &payload, payload.len()).await.unwrap();
    incoming.finish().await.unwrap();
}

/// After a power cut a part can be longer than what was written. That is not the site's fault the first time.
#[tokio::test]
async fn a_part_that_is_not_what_was_sent_is_begun_anew_once() {
    let (bench, payload) = (Bench::new(), payload(3));
    let request = bench.request(&payload);
    let staging = bench.staging();
    staging.open(bench.wanted(bench.update())).unwrap();
    for is_first in [true, false] {
        let mut incoming = staging.begin(request.clone()).await.unwrap();
        assert_eq!(incoming.offset(), 0);
        send(&mut incoming, &payload, 1_400).await.unwrap();
        drop(incoming);
        let part = bench.folder.path().join("uploads").join(&bench.files()[0]);
        let mut bytes = fs::read(&part).unwrap();
        bytes.extend([0; 300]);
        fs::write(&part, bytes).unwrap();
        let mut incoming = staging.begin(request.clone()).await.unwrap();
        assert_eq!(incoming.offset(), 1_700);
        send(&mut incoming, &payload, payload.len()).await.unwrap();
        let refused = incoming.finish().await.unwrap_err();
        assert!(matches!((is_first, &refused), (true, Refused::Anew) | (false, Refused::Wrong(_))), "{refused:?}");
        assert!(bench.files().is_empty());
    }
    // From its beginning to its end it is taken.
    let mut incoming = staging.begin(request).await.unwrap();
    send(&mut incoming, &payload, payload.len()).await.unwrap();
    incoming.finish().await.unwrap();
}

#[tokio::test]
async fn damaged_misplaced_and_oversized_chunks_are_refused_and_the_upload_goes_on() {
    let (bench, payload) = (Bench::new(), payload(5));
    let staging = bench.staging();
    staging.open(bench.wanted(bench.update())).unwrap();
    let mut incoming = staging.begin(bench.request(&payload)).await.unwrap();
    let chunk = Bytes::copy_from_slice(&payload[..100]);
    let hash = *blake3::hash(&chunk).as_bytes();
    let mut flipped = chunk.to_vec();
    flipped[7] ^= 1;
    assert!(matches!(incoming.append(0, flipped.into(), hash).await, Err(Refused::Damaged(0))));
    assert!(matches!(incoming.append(50, chunk.clone(), hash).await, Err(Refused::Offset { expected: 0, got: 50 })));
    let long = Bytes::from(vec![0; payload.len() + 1]);
    let long_hash = *blake3::hash(&long).as_bytes();
    assert!(matches!(incoming.append(0, long, long_hash).await, Err(Refused::Wrong(_))));
    assert!(matches!(incoming.append(0, Bytes::new(), hash).await, Err(Refused::Wrong(_))));
    send(&mut incoming, &payload, payload.len()).await.unwrap();
    incoming.finish().await.unwrap();
}

#[tokio::test]
async fn bytes_that_are_not_what_was_announced_leave_nothing_behind() {
    let (bench, good) = (Bench::new(), payload(5));
    let staging = bench.staging();
    staging.open(bench.wanted(bench.update())).unwrap();
    let mut other = good.clone();
    other[200] ^= 1;
    let mut incoming = staging.begin(bench.request(&good)).await.unwrap();
    send(&mut incoming, &other, other.len()).await.unwrap();
    assert!(matches!(incoming.finish().await, Err(Refused::Wrong(reason)) if reason.contains("digest")));
    assert!(bench.files().is_empty());
    // A weight that no site can have.
    let mut heavy = good.clone();
    heavy[..8].copy_from_slice(&11u64.to_le_bytes());
    let mut incoming = staging.begin(bench.request(&heavy)).await.unwrap();
    send(&mut incoming, &heavy, heavy.len()).await.unwrap();
    assert!(matches!(incoming.finish().await, Err(Refused::Wrong(reason)) if reason.contains("row weight")));
    // An end too early is no end.
    let mut incoming = staging.begin(bench.request(&good)).await.unwrap();
    send(&mut incoming, &good, 700).await.unwrap();
    assert!(matches!(incoming.finish().await, Err(Refused::Offset { .. })));
    let mut incoming = staging.begin(bench.request(&good)).await.unwrap();
    assert_eq!(incoming.offset(), 700);
    send(&mut incoming, &good, good.len()).await.unwrap();
    incoming.finish().await.unwrap();
}

#[tokio::test]
async fn strangers_other_studies_wrong_kinds_and_lengths_are_refused_before_a_byte() {
    let (bench, payload) = (Bench::new(), payload(1));
    let staging = bench.staging();
    let request = bench.request(&payload);
    assert!(matches!(staging.begin(request.clone()).await, Err(Refused::Over(_))));
    staging.open(bench.wanted(bench.update())).unwrap();
    let refuse = async |request: UploadRequest, what: &str| {
        let refused = staging.begin(request.clone()).await.unwrap_err();
        assert!(refused.to_string().contains(what), "{refused}");
        assert!(staging.status(&request).await.is_err());
    };
    refuse(UploadRequest { site: SiteId::from_bytes([9; 16]), ..request.clone() }, "asked").await;
    let other = StudyId::new(Timestamp::from_millis(5), [9; 10]);
    refuse(UploadRequest { study: other, ..request.clone() }, "another study").await;
    refuse(UploadRequest { kind: UploadKind::Figures, ..request.clone() }, "another kind").await;
    refuse(UploadRequest { length: 12, ..request.clone() }, "12 bytes").await;
    refuse(UploadRequest { length: u64::MAX, ..request.clone() }, "bytes").await;
    staging.close(&bench.round);
    refuse(request, "over").await;
    assert!(bench.files().is_empty());
}

#[tokio::test]
async fn a_second_connection_takes_over_and_the_first_can_write_nothing_more() {
    let (bench, payload) = (Bench::new(), payload(7));
    let staging = bench.staging();
    staging.open(bench.wanted(bench.update())).unwrap();
    let mut first = staging.begin(bench.request(&payload)).await.unwrap();
    send(&mut first, &payload, 700).await.unwrap();
    let mut second = staging.begin(bench.request(&payload)).await.unwrap();
    assert_eq!(second.offset(), 700);
    assert!(matches!(send(&mut first, &payload, 1_400).await, Err(Refused::TakenOver)));
    send(&mut second, &payload, payload.len()).await.unwrap();
    second.finish().await.unwrap();
    assert!(matches!(first.finish().await, Err(Refused::Offset { .. } | Refused::TakenOver)));
}

/// Works on a site's files until what is returned is dropped.
fn busy(pen: &Arc<Pen>) -> std::sync::mpsc::Sender<()> {
    let (done, wait) = std::sync::mpsc::channel();
    let (begun, ready) = std::sync::mpsc::channel();
    let pen = pen.clone();
    std::thread::spawn(move || {
        let _files = locked(&pen.files);
        begun.send(()).unwrap();
        let _ = wait.recv();
    });
    ready.recv().unwrap();
    done
}

#[tokio::test]
async fn a_payload_whose_check_nobody_waits_for_any_more_is_complete_all_the_same() {
    let (bench, payload) = (Bench::new(), payload(7));
    let staging = bench.staging();
    staging.open(bench.wanted(bench.update())).unwrap();
    let request = bench.request(&payload);
    let mut incoming = staging.begin(request.clone()).await.unwrap();
    send(&mut incoming, &payload, payload.len()).await.unwrap();
    let busy = busy(&incoming.slot.pen);
    let mut ending = Box::pin(incoming.finish());
    assert!(futures::poll!(ending.as_mut()).is_pending());
    // The call is cut off here.
    drop(ending);
    drop(busy);
    for _ in 0..1_000 {
        if staging.status(&request).await.unwrap() == Standing::Complete {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("{:?}, files {:?}", staging.status(&request).await, bench.files());
}

#[tokio::test]
async fn work_on_one_sites_files_keeps_nobody_else_waiting() {
    let (bench, payload) = (Bench::new(), payload(7));
    let staging = bench.staging();
    staging.open(bench.wanted(bench.update())).unwrap();
    let first = staging.begin(bench.request(&payload)).await.unwrap();
    // As a check of a large payload does.
    let busy = busy(&first.slot.pen);
    // Another connection takes over, and another payload comes in place of the first: both wait, but hold up nothing.
    let mut same = Box::pin(staging.begin(bench.request(&payload)));
    assert!(futures::poll!(same.as_mut()).is_pending());
    let other = self::payload(9);
    let mut different = Box::pin(staging.begin(bench.request(&other)));
    assert!(futures::poll!(different.as_mut()).is_pending());
    let next = RoundKey { round: 2, ..bench.round.clone() };
    let (staging_2, wanted) = (staging.clone(), Wanted { round: next.clone(), ..bench.wanted(bench.update()) });
    let opened = std::thread::spawn(move || staging_2.open(wanted).is_ok() && staging_2.heard(&next).is_empty());
    for _ in 0..1_000 {
        if opened.is_finished() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert!(opened.is_finished() && opened.join().unwrap(), "the schedule waits for one site's payload");
    drop(busy);
    assert!(matches!(same.await, Err(Refused::TakenOver)));
    let mut different = different.await.unwrap();
    send(&mut different, &other, other.len()).await.unwrap();
    different.finish().await.unwrap();
    assert_eq!(bench.files().len(), 1, "the part that was given up is still there: {:?}", bench.files());
}

#[tokio::test]
async fn one_site_has_one_unfinished_upload_and_one_finished_one_in_a_round() {
    let (bench, one, two) = (Bench::new(), payload(3), payload(5));
    let staging = bench.staging();
    staging.open(bench.wanted(bench.update())).unwrap();
    let mut first = staging.begin(bench.request(&one)).await.unwrap();
    send(&mut first, &one, 700).await.unwrap();
    let mut second = staging.begin(bench.request(&two)).await.unwrap();
    assert_eq!(bench.files().len(), 1, "the first is gone: {:?}", bench.files());
    assert!(send(&mut first, &one, 1_400).await.is_err());
    send(&mut second, &two, two.len()).await.unwrap();
    second.finish().await.unwrap();
    let refused = staging.begin(bench.request(&one)).await.unwrap_err();
    assert!(refused.to_string().contains("another payload"), "{refused}");
}

#[tokio::test]
async fn a_full_disk_refuses_and_an_emptied_one_goes_on() {
    let (bench, payload) = (Bench::new(), payload(3));
    let staging = bench.staging();
    staging.open(bench.wanted(bench.update())).unwrap();
    assert!(staging.has_room(4, 4_008).unwrap());
    bench.free.store(DISK_MARGIN_BYTES + 8 * 4_008 - 1, Ordering::SeqCst);
    assert!(!staging.has_room(4, 4_008).unwrap());
    assert!(!staging.has_room(4, u64::MAX).unwrap());
    bench.free.store(1_000, Ordering::SeqCst);
    assert!(matches!(staging.begin(bench.request(&payload)).await, Err(Refused::NoSpace)));
    bench.free.store(1 << 40, Ordering::SeqCst);
    let mut incoming = staging.begin(bench.request(&payload)).await.unwrap();
    send(&mut incoming, &payload, payload.len()).await.unwrap();
    incoming.finish().await.unwrap();
}

/// A file system of its own, so small that it fills up. Only those who may mount can have one.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(folder: &'a Path) -> Option<Self> {
        let mount =
            std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "none"]).arg(folder).output();
        mount.is_ok_and(|done| done.status.success()).then_some(Self(folder))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

/// The disk fills up in the middle of a payload, though it said that there is room.
#[tokio::test]
async fn a_disk_that_fills_up_loses_nothing_that_was_confirmed_and_goes_on_when_there_is_room() {
    let bench = Bench::new();
    let payload: Vec<u8> = 10u64.to_le_bytes().into_iter().chain((0..=250u8).cycle().take(40_000)).collect();
    let update = Content::Update { parameters: 10_000, quantise: Quantise { clip: 1.0, bits: 32, n_max: 10 } };
    let staging = bench.staging();
    let folder = bench.folder.path().join("uploads");
    let disk = SmallDisk::mount(&folder);
    staging.open(bench.wanted(update)).unwrap();
    let request = bench.request(&payload);
    let mut incoming = staging.begin(request.clone()).await.unwrap();
    send(&mut incoming, &payload, 700).await.unwrap();
    let filler = folder.join("filler");
    if disk.is_some() {
        // As much as there is room for.
        fs::write(&filler, vec![0; 128 << 10]).unwrap_err();
        let refused = send(&mut incoming, &payload, payload.len()).await.unwrap_err();
        assert!(matches!(refused, Refused::NoSpace), "{refused}");
        let durable = incoming.offset();
        drop(incoming);
        assert_eq!(staging.status(&request).await.unwrap(), Standing::Offset(durable), "more is said than is there");
        fs::remove_file(&filler).unwrap();
        incoming = staging.begin(request.clone()).await.unwrap();
        assert_eq!(incoming.offset(), durable);
    }
    send(&mut incoming, &payload, payload.len()).await.unwrap();
    let staged = incoming.finish().await.unwrap();
    assert_eq!(fs::read(staged.path()).unwrap(), payload);
}

#[tokio::test]
async fn figures_must_be_canonical_announced_and_finite() {
    let bench = Bench::new();
    let staging = bench.staging();
    let announced = vec![Figure { name: "n".into(), values: 1, kind: EgressKind::N }];
    staging.open(bench.wanted(Content::Figures(announced))).unwrap();
    let report = |name: &str, values: Vec<f64>| hospes_protocol::message::FigureSet {
        sums: [(name.to_owned(), values)].into(),
        withheld: Default::default(),
    };
    let good = hospes_protocol::canon::Canonical::new(report("n", vec![3.0])).unwrap();
    // NaN as CBOR has it; the canonical encoder refuses to write it.
    let mut nan = good.bytes().to_vec();
    let place = nan.windows(3).position(|w| w == [0xf9, 0x42, 0x00]).unwrap();
    nan[place..place + 3].copy_from_slice(&[0xf9, 0x7e, 0x00]);
    let mut trailing = good.bytes().to_vec();
    trailing.push(0);
    let named = hospes_protocol::canon::Canonical::new(report("rows", vec![3.0])).unwrap();
    let long = hospes_protocol::canon::Canonical::new(report("n", vec![3.0, 4.0])).unwrap();
    for bad in [nan, trailing, named.bytes().to_vec(), long.bytes().to_vec(), vec![0xff; 40]] {
        let request = UploadRequest { kind: UploadKind::Figures, ..bench.request(&bad) };
        let mut incoming = staging.begin(request).await.unwrap();
        send(&mut incoming, &bad, bad.len()).await.unwrap();
        assert!(matches!(incoming.finish().await, Err(Refused::Wrong(_))), "{bad:?}");
    }
    let request = UploadRequest { kind: UploadKind::Figures, ..bench.request(good.bytes()) };
    let mut incoming = staging.begin(request).await.unwrap();
    send(&mut incoming, good.bytes(), good.bytes().len()).await.unwrap();
    let staged = incoming.finish().await.unwrap();
    assert_eq!(content::figures(staged.path()).unwrap().sums["n"], [3.0]);
}

#[tokio::test]
async fn discarding_and_sweeping_delete_what_belongs_to_nobody_and_nothing_else() {
    let (bench, payload) = (Bench::new(), payload(3));
    let staging = bench.staging();
    let mut keys = Vec::new();
    for round in 1..=3 {
        let key = RoundKey { round, ..bench.round.clone() };
        staging.open(Wanted { round: key.clone(), ..bench.wanted(bench.update()) }).unwrap();
        let request = UploadRequest { round: key.clone(), ..bench.request(&payload) };
        let mut incoming = staging.begin(request).await.unwrap();
        send(&mut incoming, &payload, payload.len()).await.unwrap();
        incoming.finish().await.unwrap();
        keys.push(key);
    }
    staging.discard(&keys[0]).unwrap();
    assert_eq!(bench.files().len(), 2);
    staging.sweep([&keys[2]]).unwrap();
    assert_eq!(bench.files().len(), 1);
    assert!(staging.path(&keys[2], bench.site, Digest::of(&payload)).exists());
}
