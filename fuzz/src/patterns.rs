//! Patterns of clients.

use sordini::base::re2::Pattern;

use crate::Input;

/// Compiles a pattern, and matches a text. A group around a pattern changes nothing.
pub fn patterns(data: &[u8]) {
    let mut input = Input(data);
    let text = String::from_utf8_lossy(input.piece());
    let pattern = String::from_utf8_lossy(input.rest());
    let Ok(compiled) = Pattern::new(&pattern) else { return };
    let matches = compiled.matches(&text);
    // Without `\Q`, whose literal text would have the closing parenthesis.
    if let Ok(grouped) = Pattern::new(&format!("(?:{pattern})"))
        && !pattern.contains(r"\Q")
    {
        assert_eq!(grouped.matches(&text), matches, "{pattern:?} {text:?}");
    }
}
