//! A site that attacks rounds with secure aggregation over the real wire: gRPC over mutual TLS, through the coordinator's own
//! door, to its schedule. The other sites are honest. Which attack has which test: `docs/security-review.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hospes_coordinator::audit::Audit;
use hospes_coordinator::config::{Home, Settings};
use hospes_coordinator::enrol::Register;
use hospes_coordinator::serve::{Coordinator, Parts as Inside};
use hospes_coordinator::store::CertificateRow;
use hospes_ledger::{Action, Filter, Ledger};
use hospes_privacy::masked::{HEAD_BYTES, head, read_head};
use hospes_privacy::quantise::Quantiser;
use hospes_privacy::secagg::Sent;
use hospes_protocol::canon::Document;
use hospes_protocol::grpc::federation_client::FederationClient;
use hospes_protocol::grpc::{Chunk, UploadHeader, UploadPart, UploadReceipt, upload_header, upload_part};
use hospes_protocol::id::{Digest, RoundKey};
use hospes_protocol::message::{FromSite, Hello, RoundReply, SecureMessage, ToSite};
use hospes_protocol::round::RoundHeader;
use hospes_protocol::sign::{SecretKey, Signed};
use hospes_protocol::version::Version;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::masks::{Answer, Parts, masked};
use super::peer::{Act, Peer, delta};
use super::world::{PLAN, World, site_row};
use crate::site::{Credentials, Session, channel, csr, tls, tls_key};

/// Number of the site that attacks; four others are honest.
const ATTACKER: u8 = 4;

/// What the attacker does in a round, in place of what it should.
enum Attack {
    /// Says something else, once it comes to that step.
    Says(fn(&Peer, &Sent) -> Option<Vec<Vec<u8>>>),
    /// Changes the last byte of its masked vector, for which it signed another root; then masks for others, and signs that.
    Vector,
    /// Sends less than it announced, and a chunk that is not what its hash says, before it sends all as it is.
    Chunks,
}

/// One attack a round: what the coordinator says of it, and how many sites the sum is over all the same.
static ATTACKS: [(Attack, &str, usize); 10] = [
    (Attack::Says(another_session), "is of another round or attempt", 4),
    (Attack::Says(two_keys), "said two different things in one step", 4),
    (Attack::Says(few_commitments), "its commitments are not as many as the threshold", 4),
    (Attack::Says(flipped_box), "a box is not the one that it signed", 4),
    (Attack::Vector, "it is masked with other peers", 4),
    (Attack::Chunks, "", 5),
    (Attack::Says(another_set), "it signed another set of inputs", 5),
    (Attack::Says(both_shares), "shares of other sites than it should, or both of one", 5),
    (Attack::Says(wrong_share), "revealed a wrong share of site", 5),
    (Attack::Says(truncated), "cannot be read", 5),
];

/// The same document with something changed in it, signed anew.
fn resigned<D: Document + Clone>(signed: &Signed<D>, peer: &Peer, change: impl FnOnce(&mut D)) -> Signed<D> {
    let mut document = signed.document.clone().into_inner();
    change(&mut document);
    Signed::new(document, &peer.key).unwrap()
}

fn only(sent: Sent) -> Option<Vec<Vec<u8>>> {
    Some(vec![sent.to_bytes().unwrap()])
}

fn another_session(peer: &Peer, sent: &Sent) -> Option<Vec<Vec<u8>>> {
    let Sent::Keys(keys) = sent else { return None };
    only(Sent::Keys(resigned(keys, peer, |keys| keys.sid = Digest::of(b"the round before"))))
}

fn two_keys(peer: &Peer, sent: &Sent) -> Option<Vec<Vec<u8>>> {
    let Sent::Keys(keys) = sent else { return None };
    let other = Sent::Keys(resigned(keys, peer, |keys| keys.share_key = keys.self_key));
    Some(vec![sent.to_bytes().unwrap(), other.to_bytes().unwrap()])
}

fn few_commitments(peer: &Peer, sent: &Sent) -> Option<Vec<Vec<u8>>> {
    let Sent::Shares { shares, boxes } = sent else { return None };
    let shares = resigned(shares, peer, |shares| shares.own.truncate(2));
    only(Sent::Shares { shares, boxes: boxes.clone() })
}

fn flipped_box(_: &Peer, sent: &Sent) -> Option<Vec<Vec<u8>>> {
    let Sent::Shares { shares, boxes } = sent else { return None };
    let mut boxes = boxes.clone();
    boxes[0].sealed[0] ^= 1;
    only(Sent::Shares { shares: shares.clone(), boxes })
}

fn another_set(peer: &Peer, sent: &Sent) -> Option<Vec<Vec<u8>>> {
    let Sent::Consent(consent) = sent else { return None };
    only(Sent::Consent(resigned(consent, peer, |consent| consent.included = Digest::of(b"another set"))))
}

fn both_shares(peer: &Peer, sent: &Sent) -> Option<Vec<Vec<u8>>> {
    let Sent::Reveal(reveal) = sent else { return None };
    only(Sent::Reveal(resigned(reveal, peer, |reveal| reveal.mask.insert(0, reveal.own[0].clone()))))
}

fn wrong_share(peer: &Peer, sent: &Sent) -> Option<Vec<Vec<u8>>> {
    let Sent::Reveal(reveal) = sent else { return None };
    only(Sent::Reveal(resigned(reveal, peer, |reveal| reveal.own[1].share = reveal.own[2].share.clone())))
}

fn truncated(_: &Peer, sent: &Sent) -> Option<Vec<Vec<u8>>> {
    let Sent::Reveal(_) = sent else { return None };
    let mut message = sent.to_bytes().unwrap();
    message.truncate(message.len() / 2);
    Some(vec![message])
}

/// The attacking site.
struct Attacker {
    peer: Arc<Peer>,
    session: Session,
    client: FederationClient<Channel>,
    parts: Parts,
    headers: BTreeMap<RoundKey, RoundHeader>,
    /// Rounds in which it has done what it wanted.
    done: BTreeSet<RoundKey>,
}

impl Attacker {
    async fn run(mut self) {
        while let Some(message) = self.session.hear().await {
            match message {
                ToSite::Study(study) => self.session.say(self.peer.approval(study.document.id)).await,
                ToSite::JobReserve { job, .. } => self.session.say(FromSite::Reserved { job, refusal: None }).await,
                ToSite::RoundOpen(opened) => self.open(opened.document.clone().into_inner()).await,
                ToSite::Relay { round, message } => {
                    let Some(header) = self.headers.get(&round).cloned() else { continue };
                    if !self.done.contains(&round) {
                        let answer = self.parts.relayed(&self.peer, &header, Act::Work, message.bytes());
                        self.answer(&header, answer).await;
                    }
                }
                ToSite::JobEnded { job, state, .. } if state == "success" => {
                    self.session.say(FromSite::Release { job }).await;
                }
                _ => {}
            }
        }
    }

    async fn open(&mut self, header: RoundHeader) {
        let key = header.key();
        self.session.say(FromSite::RoundReply { round: key.clone(), reply: RoundReply::Working }).await;
        if self.done.contains(&key) {
            return;
        }
        let values = delta(&self.peer, &header);
        let slices: Vec<&[f32]> = values.iter().map(Vec::as_slice).collect();
        let quantiser = Quantiser::new(&header.quantise).unwrap();
        let levels = quantiser.encode(self.peer.rows(), &header.tensors, &slices, &mut || 0).unwrap().into_bytes();
        let answer = self.parts.opened(&self.peer, &header, Act::Work, levels);
        self.headers.insert(key, header.clone());
        self.answer(&header, answer).await;
    }

    async fn answer(&mut self, header: &RoundHeader, answer: Answer) {
        let (attack, words, _) = &ATTACKS[header.round as usize - 1];
        match (answer, attack) {
            (Answer::Nothing, _) => {}
            (Answer::Say(message), Attack::Says(change)) => {
                let sent = Sent::from_bytes(&message).unwrap();
                let messages = match change(&self.peer, &sent) {
                    Some(messages) => {
                        self.done.insert(header.key());
                        messages
                    }
                    None => vec![message],
                };
                for message in messages {
                    self.say(header, message).await;
                }
            }
            (Answer::Say(message), _) => self.say(header, message).await,
            (Answer::Upload(update), Attack::Vector) => {
                self.done.insert(header.key());
                let mut flipped = update.clone();
                *flipped.last_mut().unwrap() ^= 1;
                let refused = self.upload(header, &flipped, &flipped).await.unwrap_err();
                assert!(refused.message().contains("not the one that its head names"), "{refused}");
                let (Sent::Input(input), _) = read_head(&update[..HEAD_BYTES]).unwrap() else { panic!("an input") };
                let input = resigned(&input, &self.peer, |input| input.peers = Digest::of(b"others"));
                let message = Sent::Input(input).to_bytes().unwrap();
                let others = [&head(&message).unwrap()[..], &update[HEAD_BYTES..]].concat();
                let refused = self.upload(header, &others, &others).await.unwrap_err();
                assert!(refused.code() == Code::FailedPrecondition && refused.message().contains(words), "{refused}");
            }
            (Answer::Upload(update), Attack::Chunks) => {
                let half = &update[..update.len() / 2];
                let refused = self.upload(header, &update, &[&half[1..], &[0]].concat()).await;
                assert_eq!(refused.unwrap_err().code(), Code::DataLoss, "another chunk than its hash says");
                let refused = self.upload(header, &update, &[]).await;
                assert!(refused.is_err(), "less than was announced");
                self.upload(header, &update, &update).await.unwrap();
            }
            (Answer::Upload(update), Attack::Says(_)) => {
                self.upload(header, &update, &update).await.unwrap();
            }
        }
    }

    async fn say(&self, header: &RoundHeader, message: Vec<u8>) {
        let message = SecureMessage::new(message);
        self.session.say(FromSite::SecureStep { round: header.key(), message }).await;
    }

    /// Announces an update, and sends a chunk with the hash of as much of that.
    async fn upload(&mut self, header: &RoundHeader, announced: &[u8], sent: &[u8]) -> Result<UploadReceipt, Status> {
        let first = UploadHeader {
            kind: upload_header::Kind::Update.into(),
            study: header.study.to_string(),
            round: Some(header.key().into()),
            digest: Digest::of(announced).as_bytes().to_vec(),
            length: announced.len() as u64,
        };
        let hash = blake3::hash(&announced[..sent.len()]).as_bytes().to_vec();
        let chunk = Chunk { offset: 0, data: sent.to_vec().into(), hash };
        let mut parts = vec![UploadPart { part: Some(upload_part::Part::Header(first)) }];
        if !sent.is_empty() {
            parts.push(UploadPart { part: Some(upload_part::Part::Chunk(chunk)) });
        }
        Ok(self.client.upload(tokio_stream::iter(parts)).await?.into_inner())
    }
}

/// The coordinator's door, before the process that runs.
async fn door(world: &World) -> (Coordinator, Arc<Home>) {
    let mut settings = Settings::new("Test", "https://localhost:1", "127.0.0.1:0".parse().unwrap(), "sqlite").unwrap();
    settings.server_names = vec!["127.0.0.1".into()];
    let mut home = Home::create(&world.folder.join("home"), settings, None, (world.clock)()).unwrap();
    // The schedule signs with this key.
    home.key = Arc::new(SecretKey::from_seed(&[200; 32]));
    let (home, process) = (Arc::new(home), world.process());
    let register = Register {
        home: home.clone(),
        store: world.store.clone(),
        audit: Audit::default(),
        clock: world.clock.clone(),
    };
    let inside = Inside {
        register,
        epoch: 1,
        events: process.events,
        live: world.live.clone(),
        staging: process.staging,
        models: process.models,
    };
    (Coordinator::start(inside).await.unwrap(), home)
}

/// A site that is enrolled and that nobody plays yet.
async fn enrolled(world: &World) -> Arc<Peer> {
    let key = SecretKey::from_seed(&[200; 32]);
    let (federation, at) = (key.public().site_id(), (world.clock)());
    let peer = Peer::new(ATTACKER, key.public());
    let mut tx = world.store.begin("test").await.unwrap();
    tx.put_site(&site_row(&peer, federation, at)).await.unwrap();
    tx.next_roster(federation, &key, at).await.unwrap();
    tx.commit().await.unwrap();
    peer
}

/// Joins through the door, with a certificate as enrolment gives it.
async fn join(world: &World, coordinator: &Coordinator, home: &Home, peer: Arc<Peer>) -> Attacker {
    let (key, at) = (tls_key(), (world.clock)());
    let issued = home.ca.issue_client(&csr(&key), home.federation(), peer.id, at, 3_600_000).unwrap().unwrap();
    let (serial, expires) = (issued.serial.clone(), issued.expires);
    let mut tx = world.store.begin("test").await.unwrap();
    let certificate = CertificateRow { serial, site: peer.id, issued: at, expires, revoked: None };
    tx.insert_certificate(&certificate).await.unwrap();
    tx.commit().await.unwrap();
    let credentials = Credentials { certificate_pem: issued.pem, key_der: key.serialize_der() };
    let config = tls(home.ca.der().clone(), Some(&credentials));
    let client = FederationClient::new(channel(coordinator.address().port(), config).await.unwrap());
    let mut session = Session::open(client.clone()).await.unwrap();
    let hello = Hello { versions: vec![Version::V1], site: peer.id, software: "attacker".into(), at, epoch: 1 };
    session.say(FromSite::Hello(hello)).await;
    assert!(matches!(session.hear().await, Some(ToSite::Welcome(_))));
    Attacker { peer, session, client, parts: Parts::default(), headers: BTreeMap::new(), done: BTreeSet::new() }
}

/// What the ledger has of things that sites said and that do not count.
async fn refusals(world: &World) -> Vec<String> {
    let mut connection = world.store.read().await.unwrap();
    let filter = Filter { actions: vec![Action::UploadRefused], ..Filter::default() };
    let records = Ledger::on(&mut *connection).page(&filter, 100).await.unwrap().records;
    records.into_iter().filter_map(|record| record.reason).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_attacks_masked_rounds_is_named_and_the_sum_is_taken_without_its_help() {
    let mut world = World::new().await;
    let peer = enrolled(&world).await;
    world.start(None).await;
    let (coordinator, home) = door(&world).await;
    let attacker = join(&world, &coordinator, &home, peer.clone()).await;
    let attacking = tokio::spawn(attacker.run());

    let plan = masked(PLAN).replace("rounds: 3", &format!("rounds: {}", ATTACKS.len()));
    let training = plan.split("  eval:").next().unwrap();
    let study = world.submit(training).await;
    let job = world.succeeded(study).await;
    let rounds = world.store.rounds(job.job, 100).await.unwrap();
    let refusals = refusals(&world).await;
    for (number, (_, words, included)) in (1u32..).zip(&ATTACKS) {
        let round = rounds.iter().find(|round| round.key.round == number).unwrap();
        assert_eq!(round.key.attempt, 1, "round {number} was attempted again: {:?}", round.reason);
        assert_eq!(round.included.as_ref().map(Vec::len), Some(*included), "round {number}: {:?}", round.outs);
        assert!(words.is_empty() || refusals.iter().any(|reason| reason.contains(words)), "{words}: {refusals:?}");
        assert!(*included == 5 || round.outs[&peer.id].contains(words), "{:?}", round.outs);
    }
    // A step that it attacked is one that it took part in.
    assert!(world.peers[0].log.lock().unwrap().opened.iter().all(|header| header.roster.len() == 5));
    assert!(!attacking.is_finished(), "the attacker failed: {:?}", attacking.await);
    coordinator.stop().await;
}
