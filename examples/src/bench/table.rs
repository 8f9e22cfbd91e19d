//! Aligned text.

/// Rows of cells whose columns become equally wide: the first and the last aligned to the left,
/// the others, numbers mostly, to the right.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: &[&str]) -> Self {
        Self {
            rows: vec![head.iter().map(ToString::to_string).collect()],
        }
    }

    pub(crate) fn push(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.rows[0].len();
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                // The last may be a sentence, which needs no room after it.
                if column + 1 >= columns {
                    line.push_str(cell);
                } else if column == 0 {
                    line.push_str(&format!("{cell:<0$}  ", widths[column]));
                } else {
                    line.push_str(&format!("{cell:>0$}  ", widths[column]));
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A number with three significant digits and no exponent.
pub(crate) fn digits(value: f64) -> String {
    let before = match value.abs() {
        v if v > 0.0 => v.log10().floor() as i32 + 1,
        _ => 1,
    };
    let after = (3 - before).clamp(0, 6) as usize;
    format!("{value:.after$}")
}

/// `sparse / dense` in words.
pub(crate) fn verdict(ratio: f64) -> String {
    if ratio < 1.0 {
        format!("{:.2}x faster", 1.0 / ratio)
    } else {
        format!("{ratio:.2}x slower: dense wins")
    }
}

/// Bytes with a unit.
pub(crate) fn bytes(count: u64) -> String {
    match count {
        0..10_000 => format!("{count} B"),
        10_000..10_000_000 => format!("{} kB", digits(count as f64 / 1e3)),
        _ => format!("{} MB", digits(count as f64 / 1e6)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["layer", "ms", ""]);
        table.push(vec!["a".into(), "10.0".into(), "why".into()]);
        table.push(vec!["long name".into(), "failed".into()]);
        let text = table.to_string();
        let lines: Vec<_> = text.lines().collect();
        let wanted = [
            "layer          ms",
            "a            10.0  why",
            "long name  failed",
        ];
        assert_eq!(lines, wanted);
    }

    #[test]
    fn numbers_have_three_digits() {
        for (value, text) in [
            (0.0, "0.00"),
            (0.01234, "0.0123"),
            (0.5, "0.500"),
            (1.0, "1.00"),
            (12.345, "12.3"),
            (1234.5, "1234"),
        ] {
            assert_eq!(digits(value), text);
        }
        assert_eq!(verdict(0.5), "2.00x faster");
        assert_eq!(verdict(1.0), "1.00x slower: dense wins");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_234_000), "1234 kB");
    }
}
