"""`python -m lsap.train domain=car lambda_nscd=0.5`: train an encoder (LSAP_E, e4e, pSp, ReStyle).

With `refinement=sam` it trains that refinement's own network instead (`lsap.pipelines.refinement_training`).

The run's folder follows from its settings. Started again, an unfinished run goes on, a finished one says so.
"""

from lsap.cli.command import command

main = command("train", "lsap.pipelines.training:run", "lsap.config.checks:check_train")

if __name__ == "__main__":
    main()
