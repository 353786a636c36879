//! Approvals and permits, as somebody would attack them.

use std::collections::BTreeSet;

use hospes_protocol::approval::{ApprovalState, Circumstances, Range, RefusalCode, Trust};
use hospes_protocol::id::{Digest, JobId, StudyId, Timestamp};
use hospes_protocol::limits;
use hospes_protocol::plan::{self, Component, Init, Layer, Linear, Optimizer, Privacy, Strategy};
use hospes_protocol::policy::{EgressKind, Partner, Policy};
use hospes_protocol::round::Mode;
use hospes_protocol::version::Version;
use proptest::prelude::*;

use crate::world::{HOUR_MS, NOW, World, code, given, key, refused, site, without};

#[test]
fn a_sound_approval_gives_a_permit_for_one_round_with_the_nearest_deadline() {
    let world = World::new();
    let approval = world.approval();
    let permit = approval.permit(&world.circumstances()).unwrap();
    assert_eq!(permit.round(), &world.header.key());
    assert_eq!(permit.approval_digest(), approval.document.digest());
    assert_eq!(permit.snapshot(), Digest::of(b"snapshot"));
    assert_eq!(permit.columns(), &plan::columns_read(&world.plan));
    assert_eq!(permit.deadline(), NOW.plus_millis(600_000));
    let deadline = |change: &dyn Fn(&mut World)| {
        let mut world = World::new();
        change(&mut world);
        world.approval().permit(&world.circumstances()).unwrap().deadline()
    };
    assert_eq!(deadline(&|w| w.header.deadline = NOW.plus_millis(5)), NOW.plus_millis(5));
    assert_eq!(deadline(&|w| w.document.envelope.limits.expires = NOW.plus_millis(7)), NOW.plus_millis(7));
}

#[test]
fn every_state_but_active_refuses_with_its_own_code() {
    let states = [
        (ApprovalState::PartlyApproved, RefusalCode::NotApproved),
        (ApprovalState::Suspended, RefusalCode::Suspended),
        (ApprovalState::Revoked, RefusalCode::Revoked),
        (ApprovalState::Expired, RefusalCode::Expired),
        (ApprovalState::Superseded, RefusalCode::Superseded),
    ];
    for (state, expected) in states {
        assert_eq!(code(|w| w.now.state = state), expected);
    }
    assert_eq!(code(|w| w.now.stopped = Some("break-glass".into())), RefusalCode::Stopped);
}

#[test]
fn an_approval_expires_between_rounds() {
    let at = |ms: i64, round: u32| {
        let mut world = World::new();
        world.document.envelope.limits.expires = NOW.plus_millis(1_000);
        world.now.now = NOW.plus_millis(ms);
        world.header.round = round;
        world.approval().permit(&world.circumstances()).map(|p| p.deadline()).map_err(|r| r.code)
    };
    assert_eq!(at(0, 1), Ok(NOW.plus_millis(1_000)));
    assert_eq!(at(999, 2), Ok(NOW.plus_millis(1_000)));
    assert_eq!(at(1_000, 3), Err(RefusalCode::Expired));
}

#[test]
fn no_time_but_its_own_is_good() {
    assert_eq!(code(|w| w.document.envelope.limits.not_before = NOW.plus_millis(1)), RefusalCode::Expired);
    assert_eq!(code(|w| w.document.at = NOW.plus_millis(1)), RefusalCode::Expired, "clock set back");
    assert_eq!(code(|w| w.now.now = NOW.plus_millis(-24 * HOUR_MS)), RefusalCode::Expired);
    assert_eq!(code(|w| w.header.deadline = NOW), RefusalCode::TooLate);
    assert_eq!(code(|w| w.document.envelope.limits.round_seconds = 0), RefusalCode::TooLate);
    let year = |w: &mut World| w.document.envelope.limits.expires = NOW.plus_millis(366 * 24 * HOUR_MS);
    assert_eq!(code(year), RefusalCode::Policy, "longer than the policy's ninety days");
    given(|w| w.document.envelope.limits.expires = w.document.at.plus_millis(90 * 24 * HOUR_MS));
    assert_eq!(
        code(|w| w.document.envelope.limits.expires = w.document.at.plus_millis(90 * 24 * HOUR_MS + 1)),
        RefusalCode::Policy
    );
    assert_eq!(code(|w| w.document.envelope.limits.expires = Timestamp::from_millis(i64::MAX)), RefusalCode::Policy);
}

#[test]
fn the_header_is_believed_in_nothing() {
    let wrong: [(&str, &dyn Fn(&mut World)); 17] = [
        ("version", &|w| w.header.protocol = Version(99)),
        ("federation", &|w| w.header.federation = site(3)),
        ("study", &|w| w.header.study = StudyId::new(NOW, [9; 10])),
        ("plan", &|w| w.header.plan = Digest::of(b"another plan")),
        ("task", &|w| w.header.task = "absent".into()),
        ("a task that stays here", &|w| w.header.task = "scale".into()),
        ("round 0", &|w| w.header.round = 0),
        ("round 16 of 15", &|w| w.header.round = 16),
        ("attempt 0", &|w| w.header.attempt = 0),
        ("attempts without end", &|w| w.header.attempt = limits::ROUND_ATTEMPTS + 1),
        ("no tensors", &|w| w.header.tensors.clear()),
        ("tensors in another order", &|w| w.header.tensors.reverse()),
        ("a larger tensor", &|w| w.header.tensors[0].shape[0] = 14),
        ("another clip", &|w| w.header.quantise.clip = 1e6),
        ("another n_max", &|w| w.header.quantise.n_max = 1),
        ("no model", &|w| w.header.model = None),
        ("masks that the plan does without", &|w| w.header.mode = Mode::SecureAggregation { c: 1, t: 2, k_min: 3 }),
    ];
    for (what, spoil) in wrong {
        assert_eq!(code(spoil), RefusalCode::Header, "{what}");
    }
    assert_eq!(code(|w| w.header.epoch = 2), RefusalCode::Epoch);
}

#[test]
fn rounds_of_figures_ask_for_figures_only() {
    let figures = |w: &mut World| {
        w.header.task = "eval".into();
        w.header.tensors.clear();
    };
    given(figures);
    given(|w| {
        figures(w);
        w.header.task = "counts".into();
        w.header.model = None;
    });
    assert_eq!(code(|w| w.header.task = "eval".into()), RefusalCode::Header, "tensors from an evaluation");
    assert_eq!(
        code(|w| {
            figures(w);
            w.header.round = 2;
        }),
        RefusalCode::Header
    );
    assert_eq!(
        code(|w| {
            figures(w);
            w.header.model = None;
        }),
        RefusalCode::Header
    );
    assert_eq!(
        code(|w| {
            figures(w);
            w.header.mode = Mode::SecureAggregation { c: 1, t: 2, k_min: 3 };
        }),
        RefusalCode::Header
    );
}

#[test]
fn runs_and_rounds_are_spent_once() {
    let other = JobId::new(NOW, [8; 10]);
    given(|w| {
        w.now.spent.jobs.insert(w.header.job);
    });
    assert_eq!(
        code(|w| {
            w.now.spent.jobs.insert(other);
        }),
        RefusalCode::RunsUsedUp
    );
    given(|w| {
        w.now.spent.jobs.insert(other);
        w.document.envelope.computation.max_runs = 2;
    });
    assert_eq!(code(|w| w.document.envelope.computation.max_runs = 0), RefusalCode::RunsUsedUp);
    let round = |round: u32, attempt: u32, last: Option<u32>, last_attempt: Option<u32>| {
        let mut w = World::new();
        (w.header.round, w.header.attempt) = (round, attempt);
        (w.now.spent.last_round, w.now.spent.last_attempt) = (last, last_attempt);
        w.now.spent.last_model = w.header.model;
        w.approval().permit(&w.circumstances()).map(|_| ()).map_err(|r| r.code)
    };
    assert_eq!(round(4, 1, Some(3), Some(1)), Ok(()));
    assert_eq!(round(3, 2, Some(3), Some(1)), Ok(()));
    for (r, attempt, last, last_attempt) in [(3, 1, Some(3), Some(1)), (2, 9, Some(3), Some(1)), (3, 2, Some(3), None)]
    {
        assert_eq!(round(r, attempt, last, last_attempt), Err(RefusalCode::RoundReplayed), "{r}.{attempt}");
    }
}

#[test]
fn another_attempt_at_a_round_is_for_the_same_model() {
    let again = |w: &mut World| {
        w.header.attempt = 2;
        (w.now.spent.last_round, w.now.spent.last_attempt) = (Some(w.header.round), Some(1));
        w.now.spent.last_model = w.header.model;
    };
    let evaluation = |w: &mut World| {
        w.header.task = "eval".into();
        w.header.tensors.clear();
        again(w);
    };
    given(again);
    given(evaluation);
    given(|w| {
        evaluation(w);
        w.header.task = "counts".into();
        (w.header.model, w.now.spent.last_model) = (None, None);
    });
    let changes: [&dyn Fn(&mut World); 2] =
        [&|w| w.header.model = Some(Digest::of(b"another")), &|w| w.now.spent.last_model = None];
    for change in changes {
        for first in [&again as &dyn Fn(&mut World), &evaluation] {
            let (code, detail) = refused(|w| {
                first(w);
                change(w);
            });
            assert_eq!(code, RefusalCode::RoundReplayed);
            assert!(detail.contains("one model"), "{detail}");
        }
    }
    // The next round starts from the next model.
    given(|w| {
        again(w);
        (w.header.round, w.header.attempt, w.header.model) = (2, 1, Some(Digest::of(b"the next")));
    });
}

#[test]
fn a_plan_one_value_inside_its_envelope_runs_and_one_outside_does_not() {
    let ranged = |lr: f64| {
        move |w: &mut World| {
            let place = "tasks.train.params.optimizer.sgd.lr".to_owned();
            w.document.envelope.computation.ranges.insert(place, Range { min: 0.0005, max: 0.01 });
            World::train(&mut w.run).optimizer = Optimizer::Sgd { lr, momentum: 0.0 };
        }
    };
    for inside in [0.0005, 0.001, 0.002, 0.01] {
        given(ranged(inside));
    }
    for outside in [0.000_499, 0.010_001, 1.0] {
        let (code, detail) = refused(ranged(outside));
        assert_eq!(code, RefusalCode::OutsideEnvelope);
        assert!(detail.contains("tasks.train.params.optimizer.sgd.lr"), "{detail}");
    }
    // Without a range, the plan is the one that was reviewed and no other.
    let (code, detail) = refused(|w| World::train(&mut w.run).rounds = 14);
    assert_eq!(code, RefusalCode::OutsideEnvelope);
    assert_eq!(detail, "tasks.train.params.rounds is 14; approved is 15");
}

#[test]
fn nothing_but_numbers_can_have_a_range() {
    let all = |w: &mut World, place: &str| {
        w.document.envelope.computation.ranges.insert(place.into(), Range { min: -1e300, max: 1e300 });
    };
    assert_eq!(
        code(|w| {
            all(w, "tasks.train.params.loss");
            w.run.name = "other".into();
        }),
        RefusalCode::OutsideEnvelope
    );
    assert_eq!(
        code(|w| {
            all(w, "tasks.train.params.optimizer");
            World::train(&mut w.run).optimizer = Optimizer::Adam { lr: 0.001 };
        }),
        RefusalCode::OutsideEnvelope
    );
    assert_eq!(
        code(|w| {
            all(w, "data.columns");
            w.run.data.columns.pop();
        }),
        RefusalCode::OutsideEnvelope
    );
    given(|w| {
        all(w, "seed");
        w.run.seed = 8;
    });
    // Attack: an approval from before such a range was refused, and the same model judged at another threshold.
    let judged = |w: &mut World| {
        all(w, "tasks.eval.params.threshold");
        let Component::Evaluation(evaluation) = &mut w.run.tasks.get_mut("eval").unwrap().component else { panic!() };
        evaluation.threshold = 0.4;
    };
    assert_eq!(code(judged), RefusalCode::OutsideEnvelope);
}

#[test]
fn a_range_does_not_let_more_leave_than_was_signed() {
    let wide = |w: &mut World, place: &str| {
        w.document.envelope.computation.ranges.insert(place.into(), Range { min: 0.0, max: 1e6 });
    };
    let fewer = |w: &mut World| {
        wide(w, "tasks.train.params.rounds");
        World::train(&mut w.run).rounds = 10;
    };
    given(fewer);
    let more = |w: &mut World| {
        wide(w, "tasks.train.params.rounds");
        World::train(&mut w.run).rounds = 16;
    };
    assert_eq!(code(more), RefusalCode::OutsideEnvelope);
    // Where people signed sixteen, sixteen may be asked for.
    given(|w| {
        more(w);
        w.document.envelope.egress = plan::egress(&w.run);
    });
    let (code, detail) = refused(|w| {
        wide(w, "tasks.train.params.rounds");
        World::train(&mut w.run).rounds = 0;
    });
    assert_eq!(code, RefusalCode::Header, "{detail}");
    // A wider model has other tensors.
    let wider = |w: &mut World| {
        let model = |out| {
            vec![
                Layer::Linear(Linear { out, bias: true, init: Init::TorchDefault }),
                Layer::Relu {},
                Layer::Linear(Linear { out: 1, bias: true, init: Init::TorchDefault }),
            ]
        };
        World::train(&mut w.plan).model = model(4).into();
        World::train(&mut w.run).model = model(5).into();
        wide(w, "tasks.train.params.model.0.linear.out");
        w.document.envelope.egress = plan::egress(&w.plan);
        w.header.tensors = plan::tensors(World::train(&mut w.run), 13);
    };
    assert_eq!(self::code(wider), RefusalCode::OutsideEnvelope);
}

#[test]
fn a_plan_that_is_not_valid_here_does_not_run_whoever_signed() {
    let (code, detail) = refused(|w| {
        World::train(&mut w.plan).quantise.bits = 12;
        World::train(&mut w.run).quantise.bits = 12;
        w.header.quantise.bits = 12;
        w.document.envelope.egress = plan::egress(&w.run);
    });
    assert_eq!(code, RefusalCode::OutsideEnvelope);
    assert!(detail.contains("tasks.train.params.quantise.bits"), "{detail}");
}

#[test]
fn what_leaves_is_what_was_listed() {
    assert_eq!(code(|w| w.document.envelope.egress.clear()), RefusalCode::OutsideEnvelope);
    assert_eq!(code(|w| w.document.envelope.egress[0].bytes -= 1), RefusalCode::OutsideEnvelope);
    assert_eq!(code(|w| w.document.envelope.egress[0].to = "nobody".into()), RefusalCode::OutsideEnvelope);
}

#[test]
fn the_data_are_the_snapshot_that_was_approved() {
    assert_eq!(code(|w| w.now.snapshot.digest = Digest::of(b"altered")), RefusalCode::Snapshot);
    assert_eq!(code(|w| w.now.snapshot.columns = without(&w.now.snapshot.columns, "age")), RefusalCode::Snapshot);
    assert_eq!(
        code(|w| w.document.envelope.data.columns = without(&w.document.envelope.data.columns, "fold")),
        RefusalCode::OutsideEnvelope
    );
    assert_eq!(code(|w| w.now.snapshot.subjects = 9), RefusalCode::TooFewSubjects);
    let mut world = World::new();
    world.document.envelope.data.columns.insert("postcode".into());
    world.now.snapshot.columns.insert("postcode".into());
    let permit = world.approval().permit(&world.circumstances()).unwrap();
    assert!(!permit.columns().contains("postcode"), "approved, but this plan does not read it");
}

#[test]
fn the_policy_is_the_one_of_the_approval_and_forbids_whoever_signed() {
    let changed = |w: &mut World| w.now.policy.training.min_parties = 4;
    let mut world = World::new();
    changed(&mut world);
    let now = Circumstances { policy: world.now.policy.clone(), ..world.circumstances() };
    assert_eq!(world.approval().permit(&now).unwrap_err().code, RefusalCode::Policy, "policy changed since");
    let forbids: [(&str, &dyn Fn(&mut World)); 6] = [
        ("secure aggregation", &|w| w.policy.training.force_secure_aggregation = true),
        ("differential privacy", &|w| w.policy.privacy.require_dp = true),
        ("exact n", &|w| w.policy.egress.allow = vec![EgressKind::Update, EgressKind::Loss, EgressKind::Metrics]),
        ("metrics", &|w| w.policy.egress.allow = vec![EgressKind::Update, EgressKind::Loss, EgressKind::N]),
        ("an opinion that is missing", &|w| w.policy.approval.require_opinion = true),
        ("public-data policy on other data", &|w| w.policy = Policy::public_data()),
    ];
    for (what, spoil) in forbids {
        assert_eq!(code(spoil), RefusalCode::Policy, "{what}");
    }
    assert_eq!(code(|w| w.now.snapshot.subjects = 42), RefusalCode::TooFewSubjects, "parameters per subject");
    given(|w| w.now.snapshot.subjects = 43);
    given(|w| {
        w.policy = Policy::public_data();
        w.now.snapshot.public = true;
    });
    given(|w| {
        w.now.snapshot.subjects = 42;
        w.policy.disclosure.max_param_ratio = None;
    });
}

#[test]
fn parameters_are_counted_against_the_subjects_that_train() {
    let halves = |subjects: u64| {
        move |w: &mut World| {
            for plan in [&mut w.plan, &mut w.run] {
                let Component::DataSplit(split) = &mut plan.tasks.get_mut("split").unwrap().component else { panic!() };
                (split.by_column, split.test_fraction) = (None, Some(0.5));
            }
            w.document.envelope.data.columns = plan::columns_read(&w.plan);
            w.now.snapshot.subjects = subjects;
        }
    };
    assert_eq!(code(halves(85)), RefusalCode::TooFewSubjects, "42 of them train");
    given(halves(86));
}

#[test]
fn the_roster_is_the_one_that_was_approved() {
    let wrong: [(&str, &dyn Fn(&mut World)); 9] = [
        ("swapped key", &|w| w.header.roster[1].identity = key(55).public()),
        ("swapped id and key", &|w| {
            w.header.roster[1].identity = key(55).public();
            w.header.roster[1].site = key(55).public().site_id();
        }),
        ("a site twice", &|w| w.header.roster[1] = w.header.roster[2].clone()),
        ("without this site", &|w| {
            w.header.roster.remove(0);
        }),
        ("too few sites", &|w| w.header.roster.truncate(2)),
        ("too few inputs", &|w| w.header.mode = Mode::Plain { k_min: 2 }),
        ("more inputs than sites", &|w| w.header.mode = Mode::Plain { k_min: 5 }),
        ("trust withdrawn since", &|w| {
            w.now.peers.insert(site(2).to_string(), Trust::AssertedOnly);
            w.now.peers.remove(&site(3).to_string());
        }),
        ("trust given since, but not approved", &|w| {
            for peer in &mut w.document.envelope.roster {
                peer.trust = Trust::AssertedOnly;
            }
        }),
    ];
    for (what, spoil) in wrong {
        assert_eq!(code(spoil), RefusalCode::Roster, "{what}");
    }
    given(|w| {
        w.header.roster.pop();
    });
    given(|w| {
        w.now.peers.remove(&site(2).to_string());
    });
}

/// A plan whose updates travel masked, in a round that does it.
fn masked(w: &mut World) {
    for plan in [&mut w.plan, &mut w.run] {
        World::train(plan).privacy = Privacy::SecureAggregation {};
    }
    w.document.envelope.egress = plan::egress(&w.plan);
    w.header.mode = Mode::SecureAggregation { c: 1, t: 3, k_min: 3 };
}

/// A plan whose evaluation travels masked, in its round.
fn masked_figures(w: &mut World) {
    for plan in [&mut w.plan, &mut w.run] {
        let Component::Evaluation(evaluation) = &mut plan.tasks.get_mut("eval").unwrap().component else { panic!() };
        evaluation.privacy = Privacy::SecureAggregation {};
    }
    w.document.envelope.egress = plan::egress(&w.plan);
    w.header.task = "eval".into();
    (w.header.tensors, w.header.quantise) = plan::masks::layout(&w.run, "eval", 1);
    w.header.mode = Mode::SecureAggregation { c: 1, t: 3, k_min: 3 };
}

#[test]
fn figures_that_the_plan_masks_leave_in_no_other_way() {
    given(masked_figures);
    let wrong: [(&str, RefusalCode, &dyn Fn(&mut World)); 6] = [
        ("without masks", RefusalCode::Header, &|w| w.header.mode = Mode::Plain { k_min: 3 }),
        ("as they are", RefusalCode::Header, &|w| {
            w.header.tensors.clear();
            w.header.mode = Mode::Plain { k_min: 3 };
        }),
        ("one figure alone", RefusalCode::Header, &|w| w.header.tensors.truncate(2)),
        ("in coarser steps", RefusalCode::Header, &|w| w.header.quantise.bits = 16),
        ("of no model", RefusalCode::Header, &|w| w.header.model = None),
        ("signed for figures as they are", RefusalCode::OutsideEnvelope, &|w| {
            w.document.envelope.egress = plan::egress(&World::new().plan);
        }),
    ];
    for (what, expected, spoil) in wrong {
        let found = code(|w| {
            masked_figures(w);
            spoil(w);
        });
        assert_eq!(found, expected, "{what}");
    }
}

#[test]
fn a_plan_that_promises_masks_is_never_run_without_and_a_policy_that_forces_them_takes_no_other_update() {
    given(masked);
    let forced = |w: &mut World| w.policy.training.force_secure_aggregation = true;
    given(|w| {
        masked(w);
        forced(w);
    });
    let wrong: [(&str, RefusalCode, &dyn Fn(&mut World)); 4] = [
        ("without masks", RefusalCode::Header, &|w| w.header.mode = Mode::Plain { k_min: 3 }),
        ("too few in the sum", RefusalCode::Roster, &|w| {
            w.header.mode = Mode::SecureAggregation { c: 0, t: 2, k_min: 2 };
        }),
        ("figures under masks", RefusalCode::Header, &|w| {
            w.header.task = "eval".into();
            w.header.tensors.clear();
        }),
        ("signed for an update as it is", RefusalCode::OutsideEnvelope, &|w| {
            let mut plain = w.plan.clone();
            World::train(&mut plain).privacy = Privacy::Plain {};
            w.document.envelope.egress = plan::egress(&plain);
        }),
    ];
    for (what, expected, spoil) in wrong {
        let found = code(|w| {
            masked(w);
            spoil(w);
        });
        assert_eq!(found, expected, "{what}");
    }
    // Figures leave one by one where the policy names their kind, also where it forces masks for updates.
    given(|w| {
        forced(w);
        w.header.task = "eval".into();
        w.header.tensors.clear();
    });
}

/// A plan that trains one site after the other, under a policy that lets one site's update make a model, in this site's
/// turn.
fn by_turns(w: &mut World) {
    for plan in [&mut w.plan, &mut w.run] {
        World::train(plan).strategy = Strategy::Cyclic {};
    }
    w.document.envelope.egress = plan::egress(&w.plan);
    w.policy.training.single_updates = true;
    w.header.mode = Mode::Turn { site: site(1) };
}

#[test]
fn a_turn_is_this_sites_own_of_a_plan_by_turns_under_a_policy_that_lets_its_update_be_seen() {
    given(by_turns);
    let spoiled = |spoil: &dyn Fn(&mut World)| {
        code(|w| {
            by_turns(w);
            spoil(w);
        })
    };
    let wrong: [(&str, RefusalCode, &dyn Fn(&mut World)); 6] = [
        ("another site's turn", RefusalCode::Roster, &|w| w.header.mode = Mode::Turn { site: site(2) }),
        ("too few sites all the same", RefusalCode::Roster, &|w| w.header.roster.truncate(2)),
        ("a sum after all", RefusalCode::Header, &|w| w.header.mode = Mode::Plain { k_min: 3 }),
        ("the policy keeps updates in sums", RefusalCode::Policy, &|w| w.policy.training.single_updates = false),
        ("masks are forced", RefusalCode::Policy, &|w| w.policy.training.force_secure_aggregation = true),
        ("signed as if only the coordinator read it", RefusalCode::OutsideEnvelope, &|w| {
            w.document.envelope.egress.iter_mut().for_each(|item| item.to = "coordinator".into());
        }),
    ];
    for (what, expected, spoil) in wrong {
        assert_eq!(spoiled(spoil), expected, "{what}");
    }
    // Of a plan that averages, and of a task that reports figures, nobody is asked alone.
    assert_eq!(code(|w| w.header.mode = Mode::Turn { site: site(1) }), RefusalCode::Header);
    assert_eq!(
        spoiled(&|w| {
            w.header.task = "eval".into();
            w.header.tensors = Vec::new();
        }),
        RefusalCode::Header
    );
    for profile in [Policy::strict(), Policy::datashield()] {
        assert!(!profile.training.single_updates, "{}", profile.profile);
    }
}

#[test]
fn two_sites_are_enough_only_for_a_study_of_two_with_a_partner_that_the_policy_names() {
    let partner =
        |organisation: &str, number: u8| Partner { organisation: organisation.into(), key: key(100 + number).public() };
    let header_of_two = |w: &mut World| {
        w.header.roster.truncate(2);
        w.header.mode = Mode::Plain { k_min: 2 };
    };
    let study_of_two = |w: &mut World| {
        header_of_two(w);
        w.document.envelope.roster.truncate(1);
    };
    let named = |w: &mut World| w.policy.bilateral.allow = vec![partner("hospital 2", 2)];
    assert_eq!(code(study_of_two), RefusalCode::Roster, "nobody is named");
    given(|w| {
        study_of_two(w);
        named(w);
    });
    // Four signed; a coordinator that leaves out two does not make it a study of two.
    assert_eq!(
        code(|w| {
            header_of_two(w);
            named(w);
        }),
        RefusalCode::Roster
    );
    // Nor do fewer inputs than the policy asks for pass in a round of four.
    assert_eq!(
        code(|w| {
            named(w);
            w.header.mode = Mode::Plain { k_min: 2 };
        }),
        RefusalCode::Roster
    );
    for other in [partner("hospital 3", 2), partner("hospital 2", 3)] {
        assert_eq!(
            code(|w| {
                study_of_two(w);
                w.policy.bilateral.allow = vec![other.clone()];
            }),
            RefusalCode::Roster,
            "{other:?}"
        );
    }
    assert_eq!(
        code(|w| {
            study_of_two(w);
            named(w);
            w.now.peers.clear();
        }),
        RefusalCode::Roster
    );
}

#[test]
fn one_more_linear_layer_does_not_hide_how_many_parameters_a_model_has() {
    let linear = || Layer::Linear(Linear { out: 1, bias: true, init: Init::TorchDefault });
    let with = |layers: &[Layer], subjects: u64| {
        let layers = layers.to_vec();
        move |w: &mut World| {
            for plan in [&mut w.plan, &mut w.run] {
                World::train(plan).model = layers.clone().into();
            }
            w.header.tensors = plan::tensors(World::train(&mut w.run), 13);
            w.document.envelope.egress = plan::egress(&w.plan);
            w.now.snapshot.subjects = subjects;
        }
    };
    let deep = [linear(), linear()];
    assert_eq!(code(with(&deep, 43)), RefusalCode::TooFewSubjects);
    given(with(&deep, 49));
    given(with(&[linear(), Layer::Relu {}, linear()], 43));
}

#[test]
fn refusals_have_a_reason_and_no_hostile_text() {
    let (_, detail) = refused(|w| w.run.name = "x\u{202E}\u{1b}[2J".into());
    assert!(!detail.contains('\u{202E}') && !detail.contains('\u{1b}'), "{detail}");
}

/// Codes that the party gives by itself, where no permit is asked for.
const NOT_FROM_PERMIT: [RefusalCode; 3] = [RefusalCode::RefusedByPerson, RefusalCode::CannotRun, RefusalCode::Busy];

#[test]
fn every_code_of_a_refusal_is_reached() {
    let mut reached: BTreeSet<RefusalCode> = NOT_FROM_PERMIT.into();
    let spoils: [&dyn Fn(&mut World); 17] = [
        &|w| w.signing.clear(),
        &|w| w.now.state = ApprovalState::PartlyApproved,
        &|w| w.now.state = ApprovalState::Suspended,
        &|w| w.now.state = ApprovalState::Revoked,
        &|w| w.now.state = ApprovalState::Superseded,
        &|w| w.now.state = ApprovalState::Expired,
        &|w| w.now.stopped = Some("stopped".into()),
        &|w| w.run.seed = 9,
        &|w| w.document.envelope.computation.max_runs = 0,
        &|w| w.now.spent.last_round = Some(3),
        &|w| w.header.roster.truncate(1),
        &|w| w.now.snapshot.digest = Digest::of(b"x"),
        &|w| w.now.snapshot.subjects = 0,
        &|w| w.policy.privacy.require_dp = true,
        &|w| w.header.round = 0,
        &|w| w.header.epoch = 9,
        &|w| w.header.deadline = NOW,
    ];
    reached.extend(spoils.map(code));
    let all: BTreeSet<RefusalCode> = {
        use RefusalCode::*;
        [
            NotApproved,
            Signatures,
            Expired,
            Suspended,
            Revoked,
            Superseded,
            RefusedByPerson,
            OutsideEnvelope,
            RunsUsedUp,
            RoundReplayed,
            Roster,
            Snapshot,
            TooFewSubjects,
            Policy,
            Header,
            Stopped,
            CannotRun,
            Busy,
            Epoch,
            TooLate,
        ]
        .into()
    };
    assert_eq!(reached, all);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The range is closed, and nothing but it decides.
    #[test]
    fn permits_follow_the_range(lr in 1e-6f64..1.0, min in 1e-6f64..1.0, max in 1e-6f64..1.0) {
        let mut world = World::new();
        let place = "tasks.train.params.optimizer.sgd.lr".to_owned();
        world.document.envelope.computation.ranges.insert(place, Range { min, max });
        World::train(&mut world.run).optimizer = Optimizer::Sgd { lr, momentum: 0.0 };
        let permit = world.approval().permit(&world.circumstances());
        prop_assert_eq!(permit.is_ok(), min <= lr && lr <= max);
    }
}
