"""What stands at the end of each command's help."""

EXAMPLES = {
    "train": """examples:
  allocgym train --agent sac --seeds 3
  allocgym train my.yaml --agent.learning_rate 1e-4 --experiment slow
  allocgym train --task.reward my_rewards.py:Sortino --task.cost 0.002
  allocgym train --data files --data.options.path prices.csv --split.train_end 2018-12-31 \\
                 --split.valid_end 2020-12-31
  allocgym train --agent dqn --help               the settings of an agent
  allocgym train --resume results/train/ppo/seed_000        go on where it was stopped
  allocgym train results/train/ppo/seed_000/config.yaml     the same again""",
    "compare": """examples:
  allocgym compare
  allocgym compare --seeds 2                      quicker, and less sure
  allocgym compare --agents ppo,equal_weight --data us_stocks --experiment stocks
  allocgym compare --reference buy_and_hold --experiment held
  allocgym compare --agents "ppo, {name: ppo, label: ppo_careful, learning_rate: 1e-4}"
  allocgym compare --agents "forecast(forecaster=gru, horizon=5, rule=top_k(k=1)), equal_weight"
  allocgym compare --task.constraints "max_weight(0.4)" --workers 1""",
    "walk-forward": """examples:
  allocgym walk-forward --agents "mean_variance, risk_parity, equal_weight"
  allocgym walk-forward --agents ppo,equal_weight --walk.start 2010-01-01 --walk.refit_every 252
  allocgym walk-forward --agents sac,equal_weight --walk.train_days 2520 --walk.warm_start true
  allocgym walk-forward                           the same again: goes on where it was stopped""",
    "evaluate": """examples:
  allocgym evaluate results/compare/ppo/seed_000
  allocgym evaluate results/compare/ppo --start 2017-01-03 --data.end 2017-12-29
  allocgym evaluate results/compare/ppo --task.cost 0.002 --task.decision_lag 1
  allocgym evaluate results/compare/ppo/seed_000 --data.options.path new.csv --output path.csv""",
    "report": """examples:
  allocgym report results/compare
  allocgym report results/train/ppo results/train/sac --output both.html""",
}
GOING_ON = (
    "--allow-changes goes on with a run that was cut off although settings, data, code or\n"
    "versions have changed since, and notes that in its manifest; else it is refused."
)
