//! Limits on what comes from outside, by name. What exceeds one is refused politely, with the limit's name, or counted
//! where that is said below.

/// Bytes of one canonical document.
pub const DOCUMENT_BYTES: usize = 1 << 20;
/// Depth of nesting of one canonical document.
pub const DOCUMENT_DEPTH: usize = 64;
/// Signatures under one document.
pub const SIGNATURES: usize = 64;
/// Bytes of a plan file as a person writes it.
pub const PLAN_FILE_BYTES: usize = 256 << 10;
/// Bytes of a policy file.
pub const POLICY_FILE_BYTES: usize = 64 << 10;
/// Tasks in a plan.
pub const PLAN_TASKS: usize = 256;
/// Columns that a plan may read.
pub const PLAN_COLUMNS: usize = 10_000;
/// Layers of a model.
pub const MODEL_LAYERS: usize = 2_000;
/// Parameters of a model (f32): 16 GiB.
pub const MODEL_PARAMETERS: u64 = 1 << 32;
/// Values that all layers of a model together give for one row (f32): 4 GiB.
pub const ROW_VALUES: u64 = 1 << 30;
/// Pixels of one side of an image.
pub const IMAGE_SIDE: u32 = 4_096;
/// Classes of a label: a report of the rows by true and predicted class has to fit into a document.
pub const CLASSES: usize = 200;
/// Coefficients of a regression: the upper triangle of its information matrix must fit into a report, which is a document
/// of at most [`DOCUMENT_BYTES`].
pub const COEFFICIENTS: u64 = 400;
/// Rounds of Newton's method.
pub const NEWTON_ROUNDS: u32 = 200;
/// Largest step of Newton's method, in standard errors, after which it may count as converged. With a looser one a feature
/// of few rows that separates the outcome would pass for one without effect.
pub const NEWTON_TOLERANCE: f64 = 1e-5;
/// Subgroups of an evaluation: codes of the column that makes them.
pub const SUBGROUPS: usize = 40;
/// Intervals of a baseline hazard.
pub const TIME_INTERVALS: u32 = 10_000;
/// Rounds of one task in one run.
pub const ROUNDS: u32 = 100_000;
/// Attempts at one round. Each gives the coordinator another update, so that they count as rounds do.
pub const ROUND_ATTEMPTS: u32 = 10;
/// Local updates of one round.
pub const LOCAL_UPDATES: u32 = 1_000_000;
/// Rows of one batch.
pub const BATCH_ROWS: u32 = 1 << 20;
/// Passes over the rows of a local baseline.
pub const EPOCHS: u32 = 100_000;
/// Bins of a calibration curve.
pub const CALIBRATION_BINS: u32 = 100;
/// Largest learning rate.
pub const LEARNING_RATE: f64 = 1_000.0;
/// Largest absolute value of one entry of an update.
pub const UPDATE_CLIP: f64 = 1e6;
/// Sites in a roster.
pub const ROSTER_SITES: usize = 10_000;
/// Sites of a round with secure aggregation: above that members share with some of the others only, which this version
/// does not do yet.
pub const SECURE_SITES: usize = 128;
/// Sites of a round of `multi_krum`, which compares all of them in pairs.
pub const KRUM_SITES: u32 = 200;
/// Characters of a name (task, column, site, organisation).
pub const NAME_CHARS: usize = 128;
/// Entries of a list in a study's terms.
pub const TERMS_ENTRIES: usize = 64;
/// Characters of a free text (purpose, reason).
pub const TEXT_CHARS: usize = 4_000;
/// Bytes of a ledger's checkpoint with all its cosignatures: about 134 for each witness.
pub const CHECKPOINT_BYTES: usize = 256 << 10;
/// Bytes of one frame of the session stream.
pub const FRAME_BYTES: usize = 4 << 20;
/// Bytes of one transfer chunk. What a coordinator holds in memory is this, and a flow-control window, for each transfer.
pub const CHUNK_BYTES: usize = 256 << 10;
/// Bytes of the header of a model's file (safetensors): some 150 for each of at most two tensors of a layer.
pub const MODEL_HEADER_BYTES: u64 = 1 << 20;
/// Bytes of the card of a model, as a site gets it.
pub const CARD_BYTES: usize = 2 << 20;
/// Runs of one federation that a site has open at a time, reserved or running.
pub const OPEN_JOBS: usize = 64;
/// Runs of one study that a site takes beyond those that are approved, because not every site could start.
pub const SPARE_JOBS: usize = 100;
/// Rounds of one federation that wait or work at a site at a time.
pub const WAITING_ROUNDS: usize = 64;
/// Refused rounds of one run that a site keeps one by one; more are counted.
pub const REFUSED_ROUNDS: usize = 32;
/// Refusals of one federation's runs, of rounds of runs that are not known, and of rosters, vouches and studies, that a
/// site enters in its ledger within an hour; more are counted.
pub const REFUSALS: usize = 200;
/// Rosters of one federation that a site enters in its ledger within an hour, and as many vouches of members that it
/// verified and of others; more are taken and counted.
pub const MEMBER_ENTRIES: usize = 200;
/// Vouches that a site keeps of one member that it verified, and of all others of a federation together.
pub const VOUCHES: usize = 1_000;
/// Entries that a site makes within an hour, for each federation, of: the first checkpoints of members' logs, those of
/// members whose keys are known from elsewhere than the coordinator apart; contradictions that nothing proves, as well
/// apart; and requests for a proof from beyond the end of its own log. More are counted.
pub const WITNESS_ENTRIES: usize = 100;
/// Entries that a site makes within an hour of greetings in which somebody else answers, another epoch is named or the
/// clocks differ, for each federation and each of these. More are counted.
pub const GREETINGS: usize = 60;
/// Newest checkpoints that a site keeps of the log of a peer whose key it knows from elsewhere than the coordinator; of
/// any other it keeps the newest one. The first one, and what a contradiction is judged by, are kept besides.
pub const PEER_CHECKPOINTS: u64 = 64;
/// Peers that are no members any more, and were never verified, whose logs a site remembers.
pub const DEPARTED_PEERS: usize = 1_000;
/// Studies of one federation that wait for a decision at a site, and those that it takes within an hour.
pub const STUDIES: usize = 200;
/// Settings of one sweep: runs under one approval.
pub const SWEEP_SETTINGS: usize = 256;
/// Places of the plan that a sweep varies.
pub const SWEEP_PLACES: usize = 16;
/// Settings of a sweep that run at a time.
pub const SWEEP_PARALLEL: u32 = 16;
/// Bytes of all plans of one sweep: whoever reads the study checks each of them.
pub const SWEEP_BYTES: usize = 8 << 20;
/// Bytes that all tasks of a plan together send in their first rounds, for a dry run of it.
pub const DRY_RUN_BYTES: u64 = 256 << 20;
/// Bytes of all figures among them: people are shown each number, in one answer.
pub const DRY_RUN_FIGURES: u64 = 3 << 20;
/// Time that a dry run may compute, in milliseconds: half an hour.
pub const DRY_RUN_MS: i64 = 30 * 60 * 1_000;
/// Bytes of one uploaded or downloaded object.
pub const OBJECT_BYTES: u64 = MODEL_PARAMETERS * 8;
/// Largest difference between the clocks of a site and its coordinator, in milliseconds, before work stops.
pub const CLOCK_SKEW_MS: i64 = 5 * 60 * 1_000;
/// Time between heartbeats in milliseconds.
pub const HEARTBEAT_MS: u64 = 10_000;
/// Silence after which a peer counts as gone, in milliseconds.
pub const SILENCE_MS: u64 = 35_000;
/// Bytes of the file in which the makers of Hospes name its newest version.
pub const RELEASE_BYTES: usize = 64 << 10;
/// Packages of one version.
pub const RELEASE_PACKAGES: usize = 32;
/// Bytes of one package of Hospes.
pub const PACKAGE_BYTES: u64 = 1 << 30;
