use rule test as test_wo_pp with:
    wildcard_constraints:
        method="wo_pp",
    params:
        code=method_code("wo_pp"),
