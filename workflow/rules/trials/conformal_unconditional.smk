use rule test as test_conformal_unconditional with:
    wildcard_constraints:
        method=variants("conformal_unconditional"),
    params:
        code=method_code("conformal_unconditional"),
