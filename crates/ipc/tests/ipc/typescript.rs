//! The page's types are those of the tables.

use expect_test::expect_file;

/// `cargo xtask codegen` runs this with `UPDATE_EXPECT=1`, which writes the file.
#[test]
fn generated_types_are_current() {
    expect_file!["../../../../ui/src/ipc/generated.ts"].assert_eq(&hospes_ipc::typescript::generated());
}
