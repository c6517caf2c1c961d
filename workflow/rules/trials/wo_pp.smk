use rule test as test_wo_pp with:
    wildcard_constraints:
        method=variants("wo_pp"),
    params:
        code=method_code("wo_pp"),
