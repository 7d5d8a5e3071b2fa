//! Judges the kept images in `tests/corpus/` again. Each once showed a violation.

use std::path::{Path, PathBuf};

use super::keep;

fn corpus() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let entries = std::fs::read_dir(dir).expect("the corpus");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "image"));
    paths.sort();
    paths
}

/// Each image still shows its violation to the mutant, and the real code behaves as the file says.
#[test]
fn kept_images_still_show_their_violations() {
    let paths = corpus();
    assert!(paths.len() >= 24, "the corpus is there");
    for path in paths {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let replayed = keep::replay(&path);
        let again = replayed.again.expect_err(&name);
        println!("{name}: {again}; today: {}", replayed.right);
        assert_eq!(replayed.right, replayed.right_expected, "{name}, which showed: {}", replayed.showed);
        assert!(!replayed.right.starts_with("violation"), "{name}");
    }
}

/// Judges the image that `MAPLEAF_IMAGE` names.
#[test]
fn one_image() {
    let Some(path) = std::env::var_os("MAPLEAF_IMAGE") else {
        println!("skipped: MAPLEAF_IMAGE names no image");
        return;
    };
    let replayed = keep::replay(Path::new(&path));
    println!("showed: {}\ntoday: {}", replayed.showed, replayed.right);
    replayed.again.unwrap_or_else(|e| panic!("it violates: {e}"));
}
