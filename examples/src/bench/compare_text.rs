//! A comparison as aligned text.

use std::fmt;

use super::table::{Table, digits};
use super::{Comparison, Verdict};

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old: {}\nnew: {}", self.old_machine, self.new_machine)?;
        if !self.same_machine {
            writeln!(
                f,
                "different machines or devices: only the ratio to the dense rival is compared"
            )?;
        }
        writeln!(
            f,
            "a change counts beyond {} % and beyond the combined spread of both\n",
            digits(100.0 * self.threshold)
        )?;
        if self.same_machine {
            self.times_table(f)?;
        } else {
            self.ratios_table(f)?;
        }
        for (rows, which) in [(&self.only_old, "old"), (&self.only_new, "new")] {
            if !rows.is_empty() {
                writeln!(f, "\nonly in the {which} report:")?;
                rows.iter().try_for_each(|row| writeln!(f, "  {row}"))?;
            }
        }
        writeln!(
            f,
            "\n{} rows: {} faster, {} slower, {} same, {} moved with the dense rival, {} broken, {} \
             fixed, {} fail in both",
            self.rows.len(),
            self.count(Verdict::Faster),
            self.count(Verdict::Slower),
            self.count(Verdict::Same),
            self.count(Verdict::Drift),
            self.count(Verdict::Broken),
            self.count(Verdict::Fixed),
            self.count(Verdict::Failing),
        )
    }
}

impl Comparison {
    fn times_table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(&[
            "row", "ms old", "new", "change", "spread", "dense", "ratio", "spread", "",
        ]);
        for row in &self.rows {
            let mut cells = vec![row.row.clone()];
            match (&row.sparse, &row.dense, &row.ratio) {
                (Some(sparse), Some(dense), Some(ratio)) => cells.extend([
                    digits(sparse.old),
                    digits(sparse.new),
                    signed(sparse.change),
                    percent(sparse.noise),
                    signed(dense.change),
                    signed(ratio.change),
                    percent(ratio.noise),
                ]),
                _ => cells.extend(std::iter::repeat_n(String::from("-"), 7)),
            }
            cells.push(row.verdict.to_string());
            table.push(cells);
        }
        write!(f, "{table}")
    }

    fn ratios_table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(&["row", "ratio old", "new", "change", "spread", ""]);
        for row in &self.rows {
            let mut cells = vec![row.row.clone()];
            match &row.ratio {
                Some(ratio) => cells.extend([
                    digits(ratio.old),
                    digits(ratio.new),
                    signed(ratio.change),
                    percent(ratio.noise),
                ]),
                None => cells.extend(std::iter::repeat_n(String::from("-"), 4)),
            }
            cells.push(row.verdict.to_string());
            table.push(cells);
        }
        write!(f, "{table}")
    }
}

fn signed(part: f64) -> String {
    format!("{:+.1} %", 100.0 * part)
}

fn percent(part: f64) -> String {
    format!("{:.1} %", 100.0 * part)
}
