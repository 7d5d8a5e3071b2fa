//! Writes a start corpus into `fuzz/corpus/`: small databases, changes to them, pages, operations.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

fn main() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let folder = |target: &str| -> io::Result<PathBuf> {
        let folder = corpus.join(target);
        fs::create_dir_all(&folder)?;
        Ok(folder)
    };
    let files = folder("open_file")?;
    let pages = folder("page_decode")?;
    for (index, file) in mapleaf::testing::sample_files().iter().enumerate() {
        // Larger ones are reached only as changes to samples: libFuzzer is slow with long inputs.
        if file.len() <= 128 * 1024 {
            fs::write(files.join(format!("sample-{index}")), file)?;
        }
        for what in 0..8u8 {
            fs::write(files.join(format!("change-{index}-{what}")), [index as u8, what, 0, 3, 0, 4, 7, 9])?;
        }
        for (number, page) in file.chunks(4096).enumerate().take(24) {
            fs::write(pages.join(format!("page-{index}-{number}")), page_input(page))?;
        }
    }
    // The golden files have pages of all kinds, as earlier releases wrote them.
    for file in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden"))? {
        let file = file?.path();
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        for (number, page) in fs::read(&file)?.chunks(4096).enumerate() {
            fs::write(pages.join(format!("golden-{name}-{number}")), page_input(page))?;
        }
    }
    // Small inputs that reach each kind of page and of operation.
    let (operations, mut random) = (folder("ops")?, 1u64);
    for number in 0..64u8 {
        // Some are long, because libFuzzer lengthens its inputs slowly.
        let bytes: Vec<u8> = (0..if number < 8 { 2000 } else { 200 })
            .map(|_| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (random >> 56) as u8
            })
            .collect();
        fs::write(operations.join(format!("random-{number}")), [&[number], &bytes[..]].concat())?;
        fs::write(pages.join(format!("entries-{number}")), [&[number], &bytes[..]].concat())?;
    }
    println!("{}", corpus.display());
    Ok(())
}

/// A page as input of `page_decode`: its kind, its front and its back.
fn page_input(page: &[u8]) -> Vec<u8> {
    let gap = page.windows(2).rposition(|pair| pair == [0, 0]).unwrap_or(page.len() / 2);
    let (front, back) = (gap.min(1024), page.len() - gap);
    let len = |bytes: usize| [(bytes >> 8) as u8, bytes as u8];
    [&[0b0100], &len(front)[..], &page[..front], &len(back)[..], &page[gap..]].concat()
}
