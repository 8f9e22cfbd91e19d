//! Lines in a plane as a drawing: SVG text, without fonts or libraries of the system.

use plotters::prelude::*;

/// Width and height in pixels.
const SIZE: (u32, u32) = (760, 480);
/// Colours that colour-blind readers tell apart (Okabe and Ito), in the order of the lines.
const COLORS: [RGBColor; 8] = [
    RGBColor(0, 0, 0),
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(140, 140, 0),
];

/// A figure could not be drawn.
#[derive(Debug, thiserror::Error)]
#[error("the figure could not be drawn: {0}")]
pub struct FigureError(String);

/// A line with its name.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// As the legend names it.
    pub name: String,
    /// Its points, joined in this order. Points that are not finite are left out.
    pub points: Vec<(f64, f64)>,
}

/// What is written around the lines.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figure {
    /// Over it.
    pub title: String,
    /// Below the title, smaller.
    pub subtitle: String,
    /// Along the horizontal axis.
    pub x: String,
    /// Along the vertical axis.
    pub y: String,
    /// Whether both axes grow by factors.
    pub logarithmic: bool,
}

impl Figure {
    /// Draws lines, each with a mark at every point; `None` if there is no point.
    ///
    /// # Errors
    /// [`FigureError`] if the drawing fails.
    ///
    /// # Example
    /// ```
    /// use examples::figure::{Figure, Line};
    ///
    /// let line = Line { name: "blocks".into(), points: vec![(1.0, 0.98), (2.0, 0.99)] };
    /// let svg = Figure::default().draw(&[line])?.expect("there are points");
    /// assert!(svg.contains("blocks"));
    /// assert!(Figure::default().draw(&[])?.is_none());
    /// # Ok::<(), examples::figure::FigureError>(())
    /// ```
    pub fn draw(&self, lines: &[Line]) -> Result<Option<String>, FigureError> {
        let finite = |&(x, y): &(f64, f64)| {
            let drawable = x.is_finite() && y.is_finite();
            drawable && (!self.logarithmic || (x > 0.0 && y > 0.0))
        };
        let lines: Vec<Line> = lines
            .iter()
            .map(|line| Line {
                name: line.name.clone(),
                points: line.points.iter().copied().filter(finite).collect(),
            })
            .filter(|line| !line.points.is_empty())
            .collect();
        if lines.is_empty() {
            return Ok(None);
        }
        let mut svg = String::new();
        self.paint(&lines, &mut svg)
            .map_err(|error| FigureError(error.to_string()))?;
        Ok(Some(svg))
    }

    fn paint(&self, lines: &[Line], svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
        let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let text = |size: u32| ("sans-serif", size).into_font();
        root.draw(&Text::new(self.title.clone(), (16, 10), text(15)))?;
        let grey = text(12).color(&RGBColor(110, 110, 110));
        root.draw(&Text::new(self.subtitle.clone(), (16, 30), grey))?;
        let area = root.margin(48, 12, 12, 24);
        let points = || lines.iter().flat_map(|line| &line.points);
        let (x, y) = (
            range(points().map(|point| point.0), self.logarithmic),
            range(points().map(|point| point.1), self.logarithmic),
        );
        let mut builder = ChartBuilder::on(&area);
        builder.x_label_area_size(44).y_label_area_size(64);
        // The scales are of different types.
        macro_rules! chart {
            ($x:expr, $y:expr) => {{
                let mut chart = builder.build_cartesian_2d($x, $y)?;
                chart
                    .configure_mesh()
                    .x_desc(self.x.as_str())
                    .y_desc(self.y.as_str())
                    .x_label_formatter(&|value| short(*value))
                    .y_label_formatter(&|value| short(*value))
                    .bold_line_style(RGBColor(225, 225, 225))
                    .light_line_style(WHITE)
                    .label_style(("sans-serif", 12))
                    .axis_desc_style(("sans-serif", 13))
                    .draw()?;
                for (line, color) in lines.iter().zip(COLORS.into_iter().cycle()) {
                    let path = line.points.iter().copied();
                    chart
                        .draw_series(LineSeries::new(path.clone(), color.stroke_width(2)))?
                        .label(line.name.as_str())
                        .legend(move |(x, y)| {
                            PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2))
                        });
                    chart.draw_series(path.map(|at| Circle::new(at, 3, color.filled())))?;
                }
                chart
                    .configure_series_labels()
                    .position(SeriesLabelPosition::LowerRight)
                    .background_style(WHITE.mix(0.85))
                    .border_style(RGBColor(200, 200, 200))
                    .label_font(("sans-serif", 13))
                    .draw()?;
            }};
        }
        if self.logarithmic {
            chart!((x.0..x.1).log_scale(), (y.0..y.1).log_scale());
        } else {
            chart!(x.0..x.1, y.0..y.1);
        }
        root.present()?;
        Ok(())
    }
}

/// A little more than the values take up.
fn range(values: impl Iterator<Item = f64>, logarithmic: bool) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    if logarithmic {
        return (low / 1.3, high * 1.3);
    }
    let room = match high - low {
        0.0 => low.abs().max(1.0) * 0.1,
        span => span * 0.08,
    };
    (low - room, high + room)
}

/// Three significant digits.
fn short(value: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    let digits = (2 - value.abs().log10().floor() as i32).clamp(0, 6) as usize;
    let text = format!("{value:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_points_are_drawn_and_names_are_escaped() {
        let line = |points: &[(f64, f64)]| Line {
            name: "a<b>&".into(),
            points: points.to_vec(),
        };
        let many: Vec<Line> = (0..10).map(|i| line(&[(1.0, f64::from(i))])).collect();
        for logarithmic in [false, true] {
            let figure = Figure {
                title: "t".into(),
                logarithmic,
                ..Figure::default()
            };
            for lines in [
                &[line(&[(1.0, 2.0)])][..],
                &[line(&[(1.0, 2.0), (1e-3, 5e4)]), line(&[])],
                &[line(&[(3.0, f64::NAN), (3.0, 1.0)])],
                &many,
            ] {
                let svg = figure.draw(lines).unwrap().expect("points");
                assert!(svg.contains("a&lt;b&gt;&amp;"), "{svg}");
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            }
            assert!(figure.draw(&[line(&[(f64::NAN, 1.0)])]).unwrap().is_none());
        }
    }

    #[test]
    fn numbers_are_short() {
        let cases = [(0.0, "0"), (0.25, "0.25"), (98.5, "98.5"), (1234.5, "1234")];
        for (value, text) in cases {
            assert_eq!(short(value), text);
        }
    }
}
