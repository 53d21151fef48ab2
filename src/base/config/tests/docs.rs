use std::{fs, path::Path};

use crate::base::config::keys;

/// The list of all keys as a page; `SORDINI_UPDATE=1` writes it anew.
#[test]
fn the_page_of_keys_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/base/config/KEYS.md");
    let page = keys::page();
    if std::env::var_os("SORDINI_UPDATE").is_some() {
        fs::write(&path, &page).expect("written");
    }
    let current = fs::read_to_string(&path).unwrap_or_default();
    assert!(current == page, "KEYS.md is out of date: run this test with SORDINI_UPDATE=1");
}
