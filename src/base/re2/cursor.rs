//! The rest of a pattern that is being parsed, and the escapes that stand for one character.

use super::PatternError;

/// The most ranges of characters in all classes of a pattern. The letters of all scripts are about
/// 700 ranges.
const RANGES_MAX: usize = 100_000;

pub struct Cursor<'a> {
    pub rest: &'a str,
    /// How many ranges of characters the rest of the pattern may have.
    ranges: usize,
    /// The bytes of the pattern from its last `:]` on, or `None` if it has none.
    posix_tail: Option<usize>,
}

impl<'a> Cursor<'a> {
    pub fn new(pattern: &'a str) -> Self {
        let posix_tail = pattern.rfind(":]").map(|at| pattern.len() - at);
        Self { rest: pattern, ranges: RANGES_MAX, posix_tail }
    }

    pub fn take(&mut self) -> Option<char> {
        let next = self.rest.chars().next()?;
        self.rest = &self.rest[next.len_utf8()..];
        Some(next)
    }

    pub fn take_prefix(&mut self, prefix: &str) -> bool {
        let rest = self.rest.strip_prefix(prefix);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Returns where the next `:]` is in the rest.
    pub fn posix_end(&self) -> Option<usize> {
        // A pattern of many `[:` must not search its rest for each of them in vain.
        self.posix_tail.filter(|tail| *tail <= self.rest.len())?;
        self.rest.find(":]")
    }

    /// Takes an escape that stands for one character, of which the backslash is taken. Returns the
    /// code point, which may be a surrogate.
    pub fn take_escaped(&mut self) -> Result<u32, PatternError> {
        let digits = self.rest;
        let code_point = match self.take().ok_or(PatternError::TrailingBackslash)? {
            'a' => Some(0x07),
            't' => Some(0x09),
            'n' => Some(0x0A),
            'v' => Some(0x0B),
            'f' => Some(0x0C),
            'r' => Some(0x0D),
            'x' => self.take_hexadecimal(),
            '0'..='7' => self.take_octal(digits),
            letter if letter.is_ascii_alphanumeric() => None,
            character => Some(character.into()),
        };
        code_point.ok_or(PatternError::InvalidEscape)
    }

    /// Takes up to three octal digits. A single digit other than 0 would be a reference to a group,
    /// which RE2 does not have.
    fn take_octal(&mut self, digits: &'a str) -> Option<u32> {
        let is_octal = |byte: &u8| (b'0'..=b'7').contains(byte);
        let count = digits.bytes().take(3).take_while(is_octal).count();
        let (digits, rest) = digits.split_at(count);
        self.rest = rest;
        let is_reference = count == 1 && digits != "0";
        number(digits, 8).filter(|_| !is_reference)
    }

    /// Takes what follows `\x`: two digits, or any number of them in braces.
    fn take_hexadecimal(&mut self) -> Option<u32> {
        let (digits, rest) = match self.rest.strip_prefix('{') {
            Some(rest) => rest.split_once('}')?,
            None => self.rest.split_at_checked(2)?,
        };
        self.rest = rest;
        number(digits, 16).filter(|code_point| *code_point <= u32::from(char::MAX))
    }

    /// Counts ranges of characters. Fails if the pattern has too many.
    pub fn count_ranges(&mut self, ranges: usize) -> Result<(), PatternError> {
        self.ranges = self.ranges.checked_sub(ranges).ok_or(PatternError::TooLarge)?;
        Ok(())
    }
}

fn number(digits: &str, radix: u32) -> Option<u32> {
    // The function of the standard library also takes a sign.
    let are_digits = digits.chars().all(|digit| digit.is_digit(radix));
    if are_digits { u32::from_str_radix(digits, radix).ok() } else { None }
}
