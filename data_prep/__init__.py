"""Every source of cases becomes one case table (see :mod:`mmedlite.cases`): ``python -m data_prep SOURCE``."""
