//! Curves as SVG.

use std::path::Path;

use plotters::prelude::*;

use super::report::{Report, Series};

const SIZE: (u32, u32) = (900, 500);
/// Room above the highest point.
const HEADROOM: f64 = 1.1;
const COLOURS: [RGBColor; 4] = [BLUE, RED, GREEN, MAGENTA];

/// Writes every series of a report into a folder, and gives the names of the files.
///
/// # Errors
/// What the file system says.
pub fn write(report: &Report, folder: &Path) -> Result<Vec<String>, String> {
    std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut names = Vec::new();
    for series in report.outcomes.iter().flat_map(|outcome| &outcome.series) {
        let words = series.name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        let name = words.collect::<Vec<_>>().join("-") + ".svg";
        std::fs::write(folder.join(&name), svg(series)?).map_err(|e| format!("{name}: {e}"))?;
        names.push(name);
    }
    Ok(names)
}

/// One series as a picture.
///
/// # Errors
/// What the library says.
pub fn svg(series: &Series) -> Result<String, String> {
    let mut out = String::new();
    draw(series, &mut out).map_err(|e| e.to_string())?;
    Ok(out)
}

fn draw(series: &Series, out: &mut String) -> Result<(), Box<dyn core::error::Error>> {
    let root = SVGBackend::with_string(out, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let points = || series.curves.iter().flat_map(|(_, points)| points);
    let most = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(1e-9, f64::max);
    let (right, top) = (most(|p| p.0), most(|p| p.1) * HEADROOM);
    let mut chart = ChartBuilder::on(&root)
        .caption(&series.name, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..right, 0.0..top)?;
    chart.configure_mesh().x_desc(series.x).y_desc(series.y).light_line_style(WHITE).draw()?;
    for ((name, points), colour) in series.curves.iter().zip(COLOURS) {
        let line = chart.draw_series(LineSeries::new(points.iter().copied(), colour))?;
        line.label(name).legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
    }
    chart.configure_series_labels().background_style(WHITE).border_style(BLACK).draw()?;
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_becomes_a_line() {
        let curves = vec![("one".to_owned(), vec![(0.0, 1.0), (1.0, 3.0), (2.0, 2.0)])];
        let series = Series { name: "load <of all>".to_owned(), x: "minutes", y: "kbit/s", curves };
        let text = svg(&series).expect("it can be drawn");
        assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"));
        assert!(
            text.contains("polyline") && text.contains("minutes") && text.contains("load &lt;of all&gt;"),
            "{text}"
        );
        assert_eq!(text, svg(&series).expect("again"), "the same each time");
    }
}
