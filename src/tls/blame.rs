//! What a failed connection says about certificates, found below the errors of the libraries between.

use std::error::Error;

/// Whether this error, or one it stands on, is a certificate of the other side that was not believed.
pub fn is_untrusted(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(rustls::Error::InvalidCertificate(_)) = error.downcast_ref() {
            return true;
        }
        // An io::Error hides what it wraps from `source`.
        let io = error.downcast_ref::<std::io::Error>();
        next = match io.and_then(|io| io.get_ref()) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    false
}
