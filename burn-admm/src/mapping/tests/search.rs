use super::select::ladder;
use super::*;

/// Every part of the harm costs as much accuracy.
fn accuracy(selection: &Selection) -> f64 {
    0.9 - selection.harm
}

fn config(method: SearchMethod, offers: &Offers) -> SearchConfig {
    SearchConfig {
        evaluations: 320,
        seed: 3,
        ..SearchConfig::new(method, 0.8 * offers.dense()[0])
    }
}

fn run(method: SearchMethod, log: &mut SearchLog) -> Searched {
    let offers = ladder();
    search(
        &offers,
        &config(method, &offers),
        &Device::flex(),
        log,
        |candidates| Ok::<_, MappingError>(candidates.iter().map(accuracy).collect()),
        |_, _, _| Ok(()),
    )
    .unwrap()
}

const ALL: [SearchMethod; 3] = [
    SearchMethod::Policy,
    SearchMethod::Random,
    SearchMethod::Evolution,
];

#[test]
fn learning_beats_chance_at_equal_evaluations() {
    let [policy, random, evolution] = ALL.map(|method| run(method, &mut SearchLog::new("a")));
    let offers = ladder();
    let target = config(SearchMethod::Random, &offers);
    let all = (0..1 << 10).map(|bits: usize| {
        let choice: Vec<usize> = (0..10).map(|at| bits >> at & 1).collect();
        let selection = offers.selection(&choice);
        target.reward(accuracy(&selection), selection.ms)
    });
    let best = all.fold(f64::MIN, f64::max);
    for (found, method) in [
        (&policy, "policy"),
        (&random, "random"),
        (&evolution, "evolution"),
    ] {
        // A policy that has settled proposes nothing new, and ends.
        assert!((160..=320).contains(&found.history.len()), "{method}");
        assert!(found.reward <= best + 1e-9, "{method}");
        let mut choices: Vec<_> = found.history.iter().map(|c| &c.choice).collect();
        choices.sort();
        choices.dedup();
        assert_eq!(choices.len(), found.history.len(), "{method}: each once");
    }
    assert!(evolution.reward > best - 0.02, "{}", evolution.reward);
    assert!(policy.reward > best - 0.02, "{}", policy.reward);
    // What a method proposes late is better than what it proposes first.
    let mean = |part: &[Candidate]| part.iter().map(|c| c.reward).sum::<f64>() / part.len() as f64;
    let gain = |found: &Searched| {
        let quarter = found.history.len() / 4;
        mean(&found.history[3 * quarter..]) - mean(&found.history[..quarter])
    };
    assert!(gain(&policy) > 0.02 && gain(&evolution) > 0.02);
    assert!(gain(&random).abs() < 0.02);
}

#[test]
fn an_interrupted_search_ends_where_it_would_have_ended() {
    for method in ALL {
        let whole = run(method, &mut SearchLog::new("a"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("search.json");
        let offers = ladder();
        let config = config(method, &offers);
        let mut log = SearchLog::new("a");
        let mut rounds = 0;
        let stopped = search(
            &offers,
            &config,
            &Device::flex(),
            &mut log,
            |candidates| Ok(candidates.iter().map(accuracy).collect()),
            |log, _, _| {
                rounds += 1;
                log.save(&path)?;
                match rounds {
                    9 => Err(MappingError::Stopped("enough".into())),
                    _ => Ok(()),
                }
            },
        );
        assert!(matches!(stopped, Err(MappingError::Stopped(_))));
        let mut log = SearchLog::open(&path, "a").unwrap().table;
        let before = log.len();
        assert!((32..320).contains(&before), "{before}");
        let mut evaluated = 0;
        let resumed = search(
            &offers,
            &config,
            &Device::flex(),
            &mut log,
            |candidates| {
                evaluated += candidates.len();
                Ok::<_, MappingError>(candidates.iter().map(accuracy).collect())
            },
            |_, _, _| Ok(()),
        )
        .unwrap();
        // Nothing is evaluated twice.
        assert_eq!(evaluated, whole.history.len() - before, "{method:?}");
        let choices = |found: &Searched| -> Vec<Vec<usize>> {
            found.history.iter().map(|c| c.choice.clone()).collect()
        };
        assert_eq!(choices(&resumed), choices(&whole), "{method:?}");
        let other = SearchLog::open(&path, "b").unwrap();
        assert!(other.table.is_empty() && other.dropped.is_some());
    }
}

#[test]
fn small_spaces_end_and_senseless_settings_are_refused() {
    let mut offers = ladder();
    offers.layers.truncate(2);
    let find = |config: &SearchConfig, offers: &Offers| {
        search(
            offers,
            config,
            &Device::flex(),
            &mut SearchLog::new("a"),
            |candidates| Ok::<_, MappingError>(candidates.iter().map(accuracy).collect()),
            |_, _, _| Ok(()),
        )
    };
    for method in ALL {
        let found = find(&config(method, &offers), &offers).unwrap();
        assert_eq!(found.history.len(), 4, "{method:?}");
    }
    let good = config(SearchMethod::Random, &offers);
    for wrong in [
        SearchConfig {
            evaluations: 0,
            ..good.clone()
        },
        SearchConfig {
            round: 0,
            ..good.clone()
        },
        SearchConfig {
            target_ms: f64::NAN,
            ..good.clone()
        },
        SearchConfig {
            lambda: -1.0,
            ..good.clone()
        },
    ] {
        assert!(find(&wrong, &offers).is_err());
    }
    offers.layers.clear();
    assert!(find(&good, &offers).is_err());
}
