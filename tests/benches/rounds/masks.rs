//! A scripted site's part in rounds with secure aggregation: the real state machine, each answer durable before it is said, and
//! in place of an update one level for every entry.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use hospes_privacy::masked;
use hospes_privacy::secagg::{Demands, Fixed, Member, Past, Refusal, Relay, Seed, Step, Turn};
use hospes_protocol::approval::Trust;
use hospes_protocol::canon::Canonical;
use hospes_protocol::id::Digest;
use hospes_protocol::round::RoundHeader;
use hospes_protocol::sign::SecretKey;
use zeroize::Zeroizing;

use crate::site::ROWS;

/// What is done next.
pub(crate) enum Answer {
    Nothing,
    Say(Vec<u8>),
    Upload { path: PathBuf, digest: Digest, bytes: u64 },
}

/// A site's part in its present round, and what it remembers of those before.
pub(crate) struct Parts {
    key: SecretKey,
    folder: PathBuf,
    number: usize,
    member: Option<Member>,
    past: Past,
}

fn words(refusal: Refusal) -> anyhow::Error {
    anyhow!("{refusal}")
}

impl Parts {
    pub(crate) fn new(key: SecretKey, folder: &Path, number: usize) -> Self {
        Self { key, folder: folder.to_owned(), number, member: None, past: Past::default() }
    }

    /// A round is open, and the update is there.
    pub(crate) fn begin(&mut self, header: &RoundHeader) -> Result<Answer> {
        let peers: BTreeMap<_, _> = header.roster.iter().map(|entry| (entry.identity, Trust::VerifiedHere)).collect();
        let demands = Demands {
            identity: self.key.public(),
            peers,
            min_parties: 3,
            min_trusted_peers: 0,
            corrupt: None,
            model: header.model,
            noise: None,
        };
        self.past.epoch = header.epoch;
        let seed = Digest::of(format!("{} {}", self.number, header.key()).as_bytes());
        let seed = Seed::new(Zeroizing::new(*seed.as_bytes()));
        let setup = masked::session(header).map_err(words)?;
        let mut member = Member::new(setup, demands, &self.past, &seed).map_err(words)?;
        let fixed = member.advertise(&self.key).map_err(words)?;
        self.past.last = Some((header.round, header.attempt));
        self.member = Some(member);
        self.keep(&fixed)?;
        Ok(Answer::Say(fixed.message))
    }

    /// The others said something.
    pub(crate) fn hear(&mut self, header: &Canonical<RoundHeader>, relay: &[u8]) -> Result<Answer> {
        let Some(member) = &mut self.member else { return Ok(Answer::Nothing) };
        let relay = Relay::from_bytes(relay).map_err(words)?;
        match member.on(&relay, &self.past, &self.key) {
            Ok(Turn::Send(fixed)) => {
                if fixed.step == Step::Consent {
                    self.past.consented = Some((header.round, header.attempt));
                }
                self.keep(&fixed)?;
                Ok(Answer::Say(fixed.message))
            }
            Ok(Turn::Mask) => self.mask(),
            // What comes once more.
            Err(Refusal::OutOfTurn { .. } | Refusal::Fixed(_)) => Ok(Answer::Nothing),
            Err(refusal) => bail!(words(refusal)),
        }
    }

    fn mask(&mut self) -> Result<Answer> {
        let Some(member) = &mut self.member else { return Ok(Answer::Nothing) };
        let (mut masker, mut vector) = (member.masker().map_err(words)?, Vec::new());
        while let Some(block) = masker.expected() {
            let level = if block.part == 0 { ROWS } else { block.most / 2 };
            vector.extend(masker.block(&mut vec![level; block.entries])?);
        }
        let fixed = member.commit(masker.finish()?, &self.key).map_err(words)?;
        let update = [masked::head(&fixed.message).map_err(words)?, vector].concat();
        let path = self.folder.join(format!("masked-{}", self.number));
        durable(&path, &update)?;
        self.keep(&fixed)?;
        Ok(Answer::Upload { path, digest: Digest::of(&update), bytes: update.len() as u64 })
    }

    /// As the record of a real site is, before anything of it leaves.
    fn keep(&self, fixed: &Fixed) -> Result<()> {
        durable(&self.folder.join(format!("record-{}", self.number)), &fixed.message)
    }
}

fn durable(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(())
}
