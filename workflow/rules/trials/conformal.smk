use rule test as test_conformal with:
    wildcard_constraints:
        method=variants("conformal"),
    params:
        code=method_code("conformal"),
