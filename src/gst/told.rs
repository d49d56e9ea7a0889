//! Warnings of settings, which every frame would bring up again.

/// What has been said: each thing once, until settings were changed that made it go away.
#[derive(Debug, Default)]
pub(crate) struct Told {
    now: Vec<String>,
    before: Vec<String>,
}

impl Told {
    /// Settings have been changed: whatever is still wrong is no news.
    pub fn begin(&mut self) {
        self.before = std::mem::take(&mut self.now);
    }

    /// Whether `text` is to be said.
    pub fn is_news(&mut self, text: &str) -> bool {
        let is_known = |told: &[String]| told.iter().any(|known| known == text);
        if is_known(&self.now) {
            return false;
        }
        self.now.push(text.into());
        !is_known(&self.before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_said_once_until_it_went_away() {
        let mut told = Told::default();
        assert!(told.is_news("a") && !told.is_news("a") && told.is_news("b"));
        told.begin();
        assert!(!told.is_news("a"), "another setting was changed");
        told.begin();
        assert!(!told.is_news("a") && told.is_news("b"), "b was mended in between");
    }
}
