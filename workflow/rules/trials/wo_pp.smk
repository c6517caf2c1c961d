use rule test as test_wo_pp with:
    wildcard_constraints:
        method="wo_pp",
    params:
        code=stage_code("test", "sigad.baselines.wo_pp"),
