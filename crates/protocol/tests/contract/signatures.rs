//! Signatures under approvals: who may sign, in which mode, and what happens when a byte changes.

use hospes_protocol::approval::{
    Approval, ApprovalDocument, ApprovalState, DELAY_MS, Opening, Opinion, OpinionView, RefusalCode, Role,
};
use hospes_protocol::canon::Canonical;
use hospes_protocol::id::{ApprovalId, Digest, Timestamp};
use hospes_protocol::plan::{self, Privacy};
use hospes_protocol::policy::FourEyes;
use hospes_protocol::round::Mode;

use crate::world::{HOUR_MS, NOW, World, code, given, person, refused, signer};

#[test]
fn signatures_are_refused_unless_two_enabled_people_signed_in_their_roles() {
    let at = NOW;
    let bad: [(&str, &dyn Fn(&mut World)); 12] = [
        ("none", &|w| w.signing.clear()),
        ("steward alone", &|w| w.signing.truncate(1)),
        ("approver alone", &|w| {
            w.signing.remove(0);
        }),
        ("one person in both roles", &|w| {
            w.signing = vec![(4, Role::DataSteward, 4, at), (4, Role::DataAccessApprover, 4, at)];
        }),
        ("two names with one key", &|w| {
            w.now.signers[1].key = w.now.signers[0].key;
            w.signing[1].2 = 1;
        }),
        ("role not held", &|w| w.signing[1] = (1, Role::DataAccessApprover, 1, at)),
        ("disabled", &|w| w.now.signers[1].enabled = false),
        ("unknown person", &|w| w.signing[1] = (9, Role::DataAccessApprover, 9, at)),
        ("another's key", &|w| w.signing[1].2 = 1),
        ("privacy officer as approver", &|w| {
            w.now.signers[1].roles.insert(Role::PrivacyOfficer);
        }),
        ("a role that does not sign", &|w| w.signing.push((4, Role::Administrator, 4, at))),
        ("external in two_people", &|w| w.now.signers[1].external = true),
    ];
    for (what, spoil) in bad {
        assert_eq!(code(spoil), RefusalCode::Signatures, "{what}");
    }
    assert_eq!(code(|w| w.now.signers.push(signer(1, &[Role::DataSteward]))), RefusalCode::Signatures);
    // Two stewards, one of whom approves too: two people, in whatever order they signed.
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        given(|w| {
            let all =
                [(4, Role::DataSteward, 4, at), (4, Role::DataAccessApprover, 4, at), (1, Role::DataSteward, 1, at)];
            w.signing = order.map(|i| all[i]).into();
        });
    }
}

#[test]
fn external_mode_wants_the_second_signature_from_outside() {
    let external = |w: &mut World| {
        w.document.four_eyes = FourEyes::External;
        w.policy.approval.four_eyes = FourEyes::External;
        w.now.signers[1].external = true;
    };
    given(external);
    assert_eq!(
        code(|w| {
            external(w);
            w.now.signers[1].external = false;
        }),
        RefusalCode::Signatures
    );
    assert_eq!(
        code(|w| {
            external(w);
            w.now.signers[0].external = true;
        }),
        RefusalCode::Signatures
    );
}

#[test]
fn the_policy_decides_the_mode_not_the_document() {
    let (code, detail) = refused(|w| {
        w.document.four_eyes = FourEyes::Delayed;
        w.signing.truncate(1);
    });
    assert_eq!((code, detail.contains("four-eyes")), (RefusalCode::Policy, true), "{detail}");
}

#[test]
fn one_persons_approval_waits_three_days_and_is_good_for_masked_rounds_only() {
    let delayed = |w: &mut World| {
        w.document.four_eyes = FourEyes::Delayed;
        w.policy.approval.four_eyes = FourEyes::Delayed;
        w.signing.truncate(1);
        w.document.at = NOW.plus_millis(-2 * DELAY_MS);
        w.signing[0].3 = NOW.plus_millis(-2 * DELAY_MS);
        w.document.envelope.limits.not_before = NOW.plus_millis(-DELAY_MS);
    };
    let (why, detail) = refused(delayed);
    assert_eq!((why, detail.contains("secure aggregation")), (RefusalCode::Policy, true), "{detail}");
    // Nor is it good before its three days are over, by the later of document and signature, whatever it says itself.
    let early: [&dyn Fn(&mut World); 3] = [
        &|w| w.document.envelope.limits.not_before = NOW.plus_millis(-DELAY_MS - 1),
        &|w| w.signing[0].3 = NOW.plus_millis(-DELAY_MS + 1),
        &|w| w.document.at = NOW.plus_millis(-DELAY_MS + 1),
    ];
    for spoil in early {
        let (code, detail) = refused(|w| {
            delayed(w);
            spoil(w);
        });
        assert_eq!((code, detail.contains("72 hours")), (RefusalCode::Policy, true), "{detail}");
    }
    // A coordinator that claims masks for the round does not help where the plan does without.
    let masked = |w: &mut World| w.header.mode = Mode::SecureAggregation { c: 1, t: 3, k_min: 3 };
    assert_eq!(
        code(|w| {
            delayed(w);
            masked(w);
        }),
        RefusalCode::Header
    );
    given(|w| {
        delayed(w);
        masked(w);
        for plan in [&mut w.plan, &mut w.run] {
            World::train(plan).privacy = Privacy::SecureAggregation {};
        }
        w.document.envelope.egress = plan::egress(&w.plan);
    });
}

#[test]
fn an_approval_altered_in_any_byte_gives_no_permit() {
    let world = World::new();
    let approval = world.approval();
    let now = world.circumstances();
    let bytes = approval.document.bytes().to_vec();
    let mut parsed = 0;
    for at in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[at] ^= 1;
        let Ok(document) = Canonical::<ApprovalDocument>::parse(&altered) else { continue };
        parsed += 1;
        let altered = Approval { document, signatures: approval.signatures.clone() };
        assert_eq!(altered.permit(&now).unwrap_err().code, RefusalCode::Signatures, "byte {at}");
    }
    assert!(parsed > 100, "only {parsed} altered documents could be read; the test would show nothing");
}

#[test]
fn a_signature_holds_for_its_document_person_role_and_time_only() {
    let world = World::new();
    let approval = world.approval();
    let now = world.circumstances();
    let changed = |change: &dyn Fn(&mut Approval)| {
        let mut approval = approval.clone();
        change(&mut approval);
        approval.permit(&now).unwrap_err().code
    };
    assert_eq!(changed(&|a| a.signatures[0].at = NOW), RefusalCode::Signatures);
    assert_eq!(changed(&|a| a.signatures[1].signature = a.signatures[0].signature), RefusalCode::Signatures);
    assert_eq!(
        changed(&|a| {
            a.signatures[0].person = person(4);
            a.signatures[1].person = person(4);
        }),
        RefusalCode::Signatures
    );
    let mut other = World::new();
    other.document.id = ApprovalId::new(NOW, [77; 10]);
    assert_eq!(changed(&|a| a.signatures = other.approval().signatures), RefusalCode::Signatures);
}

#[test]
fn a_required_opinion_is_by_a_privacy_officer_and_before_the_second_signature() {
    let with = |who: u8, at: Timestamp| {
        move |w: &mut World| {
            w.policy.approval.require_opinion = true;
            w.document.opinion =
                Some(Opinion { person: person(who), at, view: OpinionView::Object, text: "no".into() });
        }
    };
    // An objection does not decide: the officer advises.
    given(with(3, NOW.plus_millis(-HOUR_MS)));
    assert_eq!(code(with(1, NOW.plus_millis(-HOUR_MS))), RefusalCode::Policy);
    assert_eq!(code(with(9, NOW.plus_millis(-HOUR_MS))), RefusalCode::Policy);
    assert_eq!(code(with(3, NOW)), RefusalCode::Policy);
}

#[test]
fn a_dry_permit_asks_for_all_but_what_people_have_still_to_say() {
    let dry = |spoil: &dyn Fn(&mut World)| {
        let mut world = World::new();
        world.signing.clear();
        world.now.signers.clear();
        world.now.state = ApprovalState::PartlyApproved;
        spoil(&mut world);
        let opening = world.approval().dry_permit(&world.circumstances()).map(Opening::from);
        opening.map(|opening| (opening.round().clone(), opening.deadline())).map_err(|refusal| refusal.code)
    };
    let round = World::new().header.key();
    assert_eq!(dry(&|_| ()), Ok((round, NOW.plus_millis(600_000))));
    // What nobody has said yet: an opinion, and whether one person is enough.
    assert!(dry(&|w| w.policy.approval.require_opinion = true).is_ok());
    let one_person = |w: &mut World| {
        w.document.four_eyes = FourEyes::Delayed;
        w.policy.approval.four_eyes = FourEyes::Delayed;
    };
    assert!(dry(&one_person).is_ok());
    let wrong: [(RefusalCode, &dyn Fn(&mut World)); 6] = [
        (RefusalCode::Stopped, &|w| w.now.stopped = Some("break-glass".into())),
        (RefusalCode::Header, &|w| w.header.attempt = 0),
        (RefusalCode::OutsideEnvelope, &|w| World::train(&mut w.run).rounds = 9_999),
        (RefusalCode::Snapshot, &|w| w.now.snapshot.digest = Digest::of(b"other data")),
        (RefusalCode::Policy, &|w| w.policy.privacy.require_dp = true),
        (RefusalCode::Roster, &|w| w.header.roster.truncate(2)),
    ];
    for (expected, spoil) in wrong {
        assert_eq!(dry(spoil), Err(expected));
    }
    // And such an approval is none for a round.
    assert_eq!(code(|w| w.signing.clear()), RefusalCode::Signatures);
}
