//! The party headless, for servers and Kubernetes: hospes-site.

fn main() {}
