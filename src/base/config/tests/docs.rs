//! The page `docs/configuration.md`.

use std::{fs, path::Path};

use crate::base::config::keys;

/// `docs/configuration.md` equals the key table. `SORDINI_UPDATE=1` writes the file.
#[test]
fn configuration_page_equals_the_key_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let page = keys::page();
    if std::env::var_os("SORDINI_UPDATE").is_some() {
        fs::write(&path, &page).expect("written");
    }
    let current = fs::read_to_string(&path).unwrap_or_default();
    assert!(current == page, "{} is out of date: run with SORDINI_UPDATE=1", path.display());
}
