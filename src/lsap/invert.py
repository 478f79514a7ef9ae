"""`python -m lsap.invert embedding=lsap_o_wplus images=photographs`: images in, codes and pictures out.

By any embedding, a trained encoder or optimisation, and any refinement of what it found (`refinement=pti`). Each of the
two is a stage with a plan of batches of its own (`lsap.runs.Store`): the work can be stopped and started again, and any
number of processes may share it. The results' folders follow from the settings.
"""

from lsap.cli.command import command

main = command("invert", "lsap.pipelines.inversion:invert", "lsap.config.checks:check_inversion")

if __name__ == "__main__":
    main()
