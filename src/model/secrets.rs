//! What an error may repeat of a text that should name a hub or a model.
//!
//! Credentials stand before an `@`. Nothing before the last one is shown, be the text as broken as it may.

use std::borrow::Cow;

/// Longer ones are cut in an error.
const SHOWN_CHARS_MAX: usize = 200;

/// The text as an error may show it.
pub fn without_secrets(text: &str) -> Cow<'_, str> {
    match text.rsplit_once('@') {
        Some((_, rest)) => format!("…@{rest}").into(),
        None => text.into(),
    }
}

/// A text and the cause of what is wrong with it, which may quote it; both whole if what stands before the
/// last `@` is known to be harmless.
pub fn shown(text: &str, cause: String, harmless: impl Fn(&str) -> bool) -> (String, String) {
    let before = text.rsplit_once('@').map(|(before, _)| before);
    let (text, cause) = match before.is_none_or(harmless) {
        true => (text.into(), cause),
        false => {
            let shown = without_secrets(text);
            let cause = without_quote(cause, &shown);
            (shown, cause)
        }
    };
    (text.chars().take(SHOWN_CHARS_MAX).collect(), cause)
}

/// A cause without the quotation of anything that is not in `shown`.
fn without_quote(cause: String, shown: &str) -> String {
    match (cause.find('`'), cause.rfind('`')) {
        (Some(from), Some(to)) if from < to && !shown.contains(&cause[from + 1..to]) => {
            format!("{}…{}", &cause[..=from], &cause[to..])
        }
        _ => cause,
    }
}
