use rule test as test_opa1 with:
    wildcard_constraints:
        method=variants("opa1"),
    params:
        code=method_code("opa1"),
