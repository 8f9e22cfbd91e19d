//! From a line of text to words.

/// Ends of contractions that become words of their own.
const ENDS: [&[u8]; 6] = [b"'s", b"'ve", b"n't", b"'re", b"'d", b"'ll"];
/// Marks that become words of their own.
const MARKS: &[u8] = b",!()?";

/// The words of a line, in small letters, as in the preprocessing that Kim published with his paper
/// (2014):
///
/// * Letters and digits of ASCII, parentheses, commas, marks of exclamation and question, and both
///   kinds of straight single quotes stay; everything else parts words.
/// * `'s`, `'ve`, `n't`, `'re`, `'d` and `'ll` are cut off the word before them.
/// * Commas, parentheses and marks are words.
///
/// The line may be of any encoding that has ASCII in it; letters beyond it part words too.
///
/// ```
/// use examples::data::text::words;
///
/// let line = b"It's (almost) brilliant - isn't it? 10/10";
/// assert_eq!(
///     words(line),
///     ["it", "'s", "(", "almost", ")", "brilliant", "is", "n't", "it", "?", "10", "10"]
/// );
/// ```
#[must_use]
pub fn words(line: &[u8]) -> Vec<String> {
    let stays = |c: u8| c.is_ascii_alphanumeric() || MARKS.contains(&c) || c == b'\'' || c == b'`';
    let mut text = String::with_capacity(line.len() + line.len() / 4);
    let mut rest = line;
    while let Some(&first) = rest.first() {
        if let Some(end) = ENDS.iter().find(|end| rest.starts_with(end)) {
            text.push(' ');
            text.extend(end.iter().map(|&c| char::from(c)));
            rest = &rest[end.len()..];
            continue;
        }
        if MARKS.contains(&first) {
            text.extend([' ', char::from(first), ' ']);
        } else if stays(first) {
            text.push(char::from(first.to_ascii_lowercase()));
        } else {
            text.push(' ');
        }
        rest = &rest[1..];
    }
    text.split_whitespace().map(String::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_and_marks_are_words_and_the_rest_parts_them() {
        for (line, wanted) in [
            ("", ""),
            (" \t\r\n", ""),
            ("plain words", "plain words"),
            ("we've, they're! I'd", "we 've , they 're ! i 'd"),
            ("don't won't can't", "do n't wo n't ca n't"),
            ("rock'n'roll", "rock'n'roll"),
            ("'tis `quoted'", "'tis `quoted'"),
            ("well--made; 3.5 stars.", "well made 3 5 stars"),
            ("what?!", "what ? !"),
            // Only small letters make a contraction; then all letters become small.
            ("IT'S", "it's"),
            ("she'll", "she 'll"),
        ] {
            let wanted: Vec<&str> = wanted.split_whitespace().collect();
            assert_eq!(words(line.as_bytes()), wanted, "{line}");
        }
    }

    #[test]
    fn any_bytes_are_taken() {
        assert_eq!(words(b"caf\xe9 na\xefve"), ["caf", "na", "ve"]);
        assert_eq!(words("café".as_bytes()), ["caf"]);
        assert_eq!(words(b"\0a\xffb\x80"), ["a", "b"]);
        let all: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
        assert!(words(&all).iter().all(|word| word.is_ascii()));
    }
}
