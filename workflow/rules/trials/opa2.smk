use rule test as test_opa2 with:
    wildcard_constraints:
        method=variants("opa2"),
    params:
        code=method_code("opa2"),
