//! Bytes that nobody wrote so: whatever was changed on its way is refused or says the same, and nothing panics.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use hospes_protocol::canon::Canonical;
use hospes_protocol::sign::Signed;
use proptest::prelude::*;
use serde::Serialize;

use super::rig::{Rig, asked, received, restored, setup, site};
use crate::secagg::*;

/// Every step of one session of four: what was relayed and said.
struct Whole {
    setup: Canonical<Setup>,
    records: BTreeMap<u32, Vec<Fixed>>,
    uploads: BTreeMap<u32, Masked>,
}

fn whole() -> &'static Whole {
    static WHOLE: OnceLock<Whole> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let rig = Rig::new(setup(4, 1, Prg::Aes128Ctr, 3), BTreeMap::new()).until(Step::End);
        Whole {
            setup: rig.setup,
            records: rig.members.into_iter().map(|(party, member)| (party, member.fixed().to_vec())).collect(),
            uploads: rig.uploads.iter().map(|(party, blocks)| (*party, received(blocks))).collect(),
        }
    })
}

/// One thing that was done to bytes.
#[derive(Debug, Clone)]
enum Change {
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Insert(prop::sample::Index, Vec<u8>),
}

impl Change {
    fn apply(&self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        match self {
            Self::Flip(at, bit) => {
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
            }
            Self::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Self::Insert(at, new) => {
                let rest = bytes.split_off(at.index(bytes.len() + 1));
                bytes.extend(new.iter().chain(&rest));
            }
        }
        bytes
    }
}

fn changes() -> impl Strategy<Value = Change> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        4 => (at(), 0u8..8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        1 => at().prop_map(Change::Cut),
        1 => (at(), prop::collection::vec(any::<u8>(), 1..5)).prop_map(|(at, new)| Change::Insert(at, new)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn random_bytes_are_no_messages(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        for read in [Sent::from_bytes(&bytes).err(), Relay::from_bytes(&bytes).err()] {
            prop_assert!(matches!(read, None | Some(Refusal::Unreadable(_))));
        }
        if let Ok(setup) = Canonical::<Setup>::parse(&bytes) {
            prop_assert!(setup.layout().is_err());
        }
    }

    #[test]
    fn a_setup_that_was_changed_is_refused_or_another_session(change in changes()) {
        let setup = &whole().setup;
        if let Ok(other) = Canonical::<Setup>::parse(&change.apply(setup.bytes())) {
            prop_assert_eq!(other.digest() == setup.digest(), other.bytes() == setup.bytes());
            // Whatever its numbers are, looking at them ends.
            drop(other.layout());
            drop(Aggregator::new(other));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_message_that_was_changed_is_refused_or_says_the_same(
        step in 0usize..5, party in 0u32..4, change in changes()
    ) {
        let whole = whole();
        let mut aggregator = Aggregator::new(whole.setup.clone()).unwrap();
        let hear = |aggregator: &mut Aggregator, party: u32, bytes: &[u8]| {
            aggregator.accept(site(party), Sent::from_bytes(bytes)?, Some(whole.uploads[&party]))
        };
        for step in 0..step {
            for party in 0..4 {
                hear(&mut aggregator, party, &whole.records[&party][step].message).unwrap();
            }
            aggregator.close(&(0..4).collect()).unwrap();
        }
        let right = &whole.records[&party][step].message;
        let bytes = change.apply(right);
        if hear(&mut aggregator, party, &bytes).is_ok() {
            let said = Sent::from_bytes(&bytes).unwrap().to_bytes().unwrap();
            prop_assert_eq!(&said, right);
        }
        prop_assert_eq!(hear(&mut aggregator, party, right), Ok(party), "nothing stuck");
    }

    #[test]
    fn a_relay_that_was_changed_is_refused_or_leads_to_the_same(step in 1usize..5, change in changes()) {
        let records = &whole().records[&2];
        let mut member = restored(&whole().setup, 2, &records[..step]).unwrap();
        let bytes = change.apply(&records[step].input);
        let Ok(relay) = Relay::from_bytes(&bytes) else { return Ok(()) };
        match asked(&mut member, &relay, 2) {
            Err(_) => prop_assert_eq!(member.fixed(), &records[..step]),
            Ok(Turn::Mask) => prop_assert_eq!(records[step].step, Step::Input),
            // A sum over fewer, of whom there are enough, can be agreed to; an accusation needs the dealer's signature.
            Ok(Turn::Send(fixed)) => {
                prop_assert_eq!(fixed.step, records[step].step);
                prop_assert!(fixed.message == records[step].message || fixed.step == Step::Consent);
            }
        }
    }
}

#[derive(Serialize)]
struct Loose {
    to: u32,
    #[serde(with = "serde_bytes")]
    sealed: Vec<u8>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum LooseSent {
    Shares { shares: Signed<Shares>, boxes: Vec<Loose> },
}

#[derive(Serialize)]
struct LooseDelivery {
    shares: Signed<Shares>,
    #[serde(with = "serde_bytes")]
    sealed: Vec<u8>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum LooseRelay {
    Shares { active: Vec<u32>, dealt: Vec<LooseDelivery> },
}

/// Attack: a box of another length, under the right digest or not.
#[test]
fn boxes_of_another_length_cannot_be_said() {
    let record = |step: usize| &whole().records[&2][step];
    let Sent::Shares { shares, boxes } = Sent::from_bytes(&record(1).message).unwrap() else { panic!("shares") };
    let Relay::Shares { active, dealt } = Relay::from_bytes(&record(2).input).unwrap() else { panic!("boxes") };
    for length in [0, 1, BOX_BYTES - 1, BOX_BYTES, BOX_BYTES + 1, 5_000] {
        let resized = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            bytes.resize(length, 0);
            bytes
        };
        let loose = boxes.iter().map(|b| Loose { to: b.to, sealed: resized(&b.sealed) }).collect();
        let mut bytes = Vec::new();
        ciborium::into_writer(&LooseSent::Shares { shares: shares.clone(), boxes: loose }, &mut bytes).unwrap();
        assert_eq!(Sent::from_bytes(&bytes).is_ok(), length == BOX_BYTES, "{length}");
        let loose =
            dealt.iter().map(|d| LooseDelivery { shares: d.shares.clone(), sealed: resized(&d.sealed) }).collect();
        let mut bytes = Vec::new();
        ciborium::into_writer(&LooseRelay::Shares { active: active.clone(), dealt: loose }, &mut bytes).unwrap();
        assert_eq!(Relay::from_bytes(&bytes).is_ok(), length == BOX_BYTES, "{length}");
    }
}
