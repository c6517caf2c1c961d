use rule test as test_bonferroni_n with:
    wildcard_constraints:
        method=variants("bonferroni_n"),
    params:
        code=method_code("bonferroni_n"),
