//! Coordinator of a federation: enrolment, schedule, aggregation, REST.

fn main() {}
